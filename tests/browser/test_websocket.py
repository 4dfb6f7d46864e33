"""A browser's WebSocket over HTTP/2: on the connection that its page came by (RFC 8441)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from h2log.server.certificates import Certificates
from tests.support import Process, poll

if TYPE_CHECKING:
    from playwright.sync_api import Browser

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect


def test_a_page_talks(browser: Browser, authority: Certificates, tmp_path: Path) -> None:
    """Chromium talks, compressed, and is closed; page and WebSocket are lines of one session."""
    target = "tests.browser.websocket_app:app"
    with Process(
        "run", target, "--lifespan", "off", certs=authority, log=tmp_path / "access.log"
    ) as server:
        page = browser.new_page()
        page.goto(f"https://localhost:{server.port}/")
        log = page.locator("#log")
        expect(log).to_contain_text("closed")
        told = log.inner_text().splitlines()
        assert told[0].startswith("open v2 permessage-deflate")
        assert told[1:] == ["small", "large", "0,255,128", "closed 3210 goodbye true"]
        poll(lambda: len(server.lines) == 2)
        page.close()
        first, second = server.lines
    assert (first.path, first.status, first.version) == ("/", 200, "h2")
    assert (second.path, second.status, second.version) == ("/talk?room=1", 200, "h2")
    assert first.session == second.session
