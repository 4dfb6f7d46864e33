"""Fixtures for every room of the tests."""

from __future__ import annotations

import gc
import signal

import pytest
from hypothesis import HealthCheck, settings

import h2log.server.server
from h2log.server.certificates import Certificates, make_certificates

# No test asserts a time, and how slowly examples are made says nothing of what they test. They are
# the same in every run: what fails has to do with what was changed. `--hypothesis-profile=search`
# looks for others.
settings.register_profile(
    "search",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("h2log", settings.get_profile("search"), derandomize=True)
settings.load_profile("h2log")


# Time limits are as precise as this, in seconds. Tests have short ones, and wait for many of them.
h2log.server.server._TICK = 0.05


# A shell that runs us in the background has it ignored, also by every process that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Take the thousands of tests themselves out of the collector's sight: they stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and a certificate for localhost, made once."""
    return make_certificates(tmp_path_factory.mktemp("certs"))
