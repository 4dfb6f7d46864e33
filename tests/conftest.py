"""Fixtures for every room of the tests."""

from __future__ import annotations

import pytest

from h2log.server.certificates import Certificates, make_certificates


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and a certificate for localhost, made once."""
    return make_certificates(tmp_path_factory.mktemp("certs"))
