"""What one browser does at one server, compared with what the server's log has of it."""

from __future__ import annotations

import time
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import httpx

from h2log.access.lines import AccessLine
from tests.support import PATIENCE, Process, client_context

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, WebError

__all__ = ["Visit"]

UNASKED = "/look/favicon.svg", "/favicon.svg"
"""What a browser fetches for itself, and does not show to the page's tools."""
PICTURES = (".png", ".svg")
"""What a page may have asked for while it was left: the tools are not always told how it ended."""


class Visit:
    """A browser's profile, with cookies, a cache and connections of its own, and its first page.

    Use: `with Visit(browser, server) as visit`. At the block's end every response that it got is in
    the log: with its id and its status, once, over HTTP/2, and all of them in one session. Nothing
    is in the log besides, but for other clients' requests, and no page had an error but those that
    were expected.
    """

    def __init__(self, browser: Browser, server: Process) -> None:
        self.server = server
        self.url = f"https://localhost:{server.port}"
        self.context = browser.new_context(base_url=self.url)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.responses: list[Response] = []
        self.errors: list[str] = []
        self._unheard: set[str] = set(UNASKED)
        self._expected: list[str] = []
        self._others: set[str] = set()
        self.context.on("response", self._answered)
        self.context.on("requestfailed", self._left)
        self.context.on("console", self._said)
        self.context.on("weberror", self._failed)
        self.page: Page = self.context.new_page()

    def _answered(self, response: Response) -> None:
        self.responses.append(response)

    def _left(self, request: Request) -> None:
        # A picture that a page asked for while it was left: there is a line, whoever heard it.
        self._unheard.add(urlsplit(request.url).path)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _failed(self, error: WebError) -> None:
        self.errors.append(str(error.error))

    def open(self, path: str) -> None:
        """Go to a page of the server, and see that it came over HTTP/2."""
        self.page.goto(path)
        self.came_by_http2()

    def came_by_http2(self) -> None:
        """The page that is shown, and all that it loaded, came over HTTP/2."""
        protocols = self.page.evaluate(
            "['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind))"
            ".map((entry) => entry.nextHopProtocol)"
        )
        assert set(protocols) == {"h2"}, protocols

    def expect_refusal(self, status: int) -> None:
        """Expect that one request more is answered with an error: a browser says so."""
        self.expect_error(f"the server responded with a status of {status}")

    def expect_error(self, text: str) -> None:
        """Expect one error more in the browser's console, which has `text` in it."""
        self._expected.append(text)

    def other_client(self) -> httpx.Client:
        """Return another client of the same server, whose requests are no part of the visit."""
        assert self.server.certs is not None

        def note(response: httpx.Response) -> None:
            self._others.add(response.headers["x-request-id"])

        return httpx.Client(
            verify=client_context(self.server.certs),
            http1=False,
            http2=True,
            base_url=self.url,
            event_hooks={"response": [note]},
        )

    def ids(self) -> list[str]:
        """Return the request ids of the responses so far; one from the cache has its old one."""
        return [response.headers["x-request-id"] for response in self.responses]

    def lines(self) -> list[AccessLine]:
        """Return the visit's lines, once each response has its line, and each line its response."""
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = [line for line in self.server.lines if line.request not in self._others]
            asked = {
                line.request
                for line in lines
                if line.path not in self._unheard and not line.path.endswith(PICTURES)
            }
            if asked <= set(self.ids()) <= {line.request for line in lines}:
                return lines
            assert time.monotonic() < deadline, (lines, self.responses)
            self.page.wait_for_timeout(5)  # milliseconds, in which what the browser tells comes in

    def check(self) -> None:
        """See `Visit`."""
        lines = self.lines()
        by_id = {line.request: line for line in lines}
        assert len(by_id) == len(lines), "a request has two lines"
        for response in self.responses:
            line = by_id[response.headers["x-request-id"]]
            address = urlsplit(response.url)
            assert line.path == address.path + (f"?{address.query}" if address.query else "")
            assert line.status in _statuses(response), line
        assert {line.session for line in lines} == {lines[0].session}, "more than one session"
        assert {line.version for line in lines} == {"h2"}
        left = list(self.errors)
        for text in self._expected:
            found = next((error for error in left if text in error), None)
            assert found is not None, f"not said: {text}"
            left.remove(found)
        assert left == []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.check()
        finally:
            self.context.close()


def _statuses(response: Response) -> Collection[int]:
    """Return the statuses that the log may have: a file from the cache was asked for again."""
    return (200, 304) if response.status == 200 else (response.status,)
