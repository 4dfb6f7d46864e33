"""Applications served by `h2log run` over TLS, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from h2log.server.certificates import Certificates
from tests.support import PATIENCE, Process, client_context, poll

__all__ = ["EVERY", "Pool", "Site", "asked_of"]

EVERY = ("starlette", "fastapi", "django", "quart", "litestar")


def asked_of(*names: str) -> pytest.MarkDecorator:
    """Run a test against the applications of these frameworks, which it has as `site`."""
    return pytest.mark.parametrize("site", names, indirect=True)


class Site:
    """One application, the process that serves it, and its access log."""

    def __init__(self, name: str, server: Process) -> None:
        self.name = name
        self.server = server

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Return a client that speaks HTTP/2 and trusts our authority alone."""
        assert self.server.certs is not None
        return httpx.AsyncClient(
            http2=True,
            verify=client_context(self.server.certs),
            base_url=self.server.url,
            timeout=PATIENCE,
            **options,
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of the access log so far."""
        text, _, _ = Path(self.server.log).read_text().rpartition("\n")
        return [json.loads(line) for line in text.splitlines()]

    def line_with(self, key: str, value: str) -> dict[str, Any]:
        """Wait for the one line that has `value` at `key`."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [line for line in self.lines if line.get(key) == value]
            return bool(found)

        poll(look)
        [line] = found
        return line

    def line(self, answer: httpx.Response) -> dict[str, Any]:
        """Wait for the one line of the request that was answered so."""
        return self.line_with("h2log.request", answer.headers["x-request-id"])

    def line_of(self, path: str) -> dict[str, Any]:
        """Wait for the one line of the only request for `path`."""
        return self.line_with("url.path", path)

    async def noted(self, key: str) -> dict[str, Any]:
        """Wait until the application has noted something; see `facts.note`."""
        async with self.client() as client, asyncio.timeout(PATIENCE):
            while True:
                answer = await client.get(f"/noted/{key}")
                assert answer.status_code == 200, answer.text
                noted: dict[str, Any] = answer.json()
                if noted["what"]:
                    return noted


class Pool:
    """The applications that tests have asked for; all are stopped at the end of the block."""

    def __init__(self, folder: Path, certs: Certificates) -> None:
        self._folder = folder
        self._certs = certs
        self._stack = ExitStack()
        self._sites: dict[str, Site] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def site(self, name: str, *arguments: str) -> Site:
        """Return the application, started with `arguments` when it was not there yet."""
        if name not in self._sites:
            server = Process(
                "run", f"tests.frameworks.{name}_app:app", "--access-format", "json", *arguments,
                certs=self._certs, log=self._folder / f"{name}.log", noisy=True,
            )  # fmt: skip
            self._sites[name] = Site(name, self._stack.enter_context(server))
        return self._sites[name]
