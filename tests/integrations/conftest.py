"""Servers that the integrations are tried with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integrations.redis_server import RedisServer
from tests.server.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that runs through all tests; who kills one has another."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
