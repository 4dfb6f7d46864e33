"""The applications, started once for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from h2log.server.certificates import Certificates
from tests.frameworks.served import Pool, Site


@pytest.fixture(scope="module")
def pool(certs: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Return what starts applications."""
    with Pool(tmp_path_factory.mktemp("logs"), certs) as pool:
        yield pool


@pytest.fixture
def site(request: pytest.FixtureRequest, pool: Pool) -> Site:
    """Return the application of the framework that the test names; see `asked_of`."""
    return pool.site(request.param)
