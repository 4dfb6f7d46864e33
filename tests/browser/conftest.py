"""A browser that trusts the development authority as a person's would, and servers for it.

Chromium reads authorities from a database in the home directory: it is given one of its own, with
the authority that `h2log certs` made in it. Nothing is told to overlook anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from h2log.server.certificates import Certificates, make_certificates
from tests.browser.visit import Visit
from tests.support import PATIENCE, ROOT, Process, tool

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Visitor = Callable[[str], Visit]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The certificates that `h2log certs` makes in an empty folder."""
    folder = tmp_path_factory.mktemp("browser") / "certs"
    command = [sys.executable, "-m", "h2log", "certs", "--dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return make_certificates(folder)


@pytest.fixture(scope="module")
def browser(authority: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, which trusts that authority.

    One for a module and not for all: while it runs, no test can have a loop of its own.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium, certutil = tool("chromium"), tool("certutil")
    home = tmp_path_factory.mktemp("home")
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    for arguments in (
        ["-N", "--empty-password"],
        ["-A", "-t", "C,,", "-n", "h2log", "-i", str(authority.ca)],
    ):
        subprocess.run(
            [certutil, *arguments, "-d", f"sql:{database}"], check=True, timeout=PATIENCE
        )
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=PATIENCE * 1000)
        launched = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox"],  # a container's root has no other choice
            timeout=PATIENCE * 2000,  # milliseconds; the first start reads all of it from the disk
            env={**os.environ, "HOME": str(home)},
        )
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser, authority: Certificates, tmp_path: Path) -> Iterator[Visitor]:
    """Return what runs `h2log run` with an application, and opens a browser's window at it.

    What the visit got, and what the log has of it, is compared at the end.
    """
    with ExitStack() as stack:

        def begin(target: str) -> Visit:
            log = tmp_path / "access.log"
            server = stack.enter_context(Process("run", target, certs=authority, log=log))
            return stack.enter_context(Visit(browser, server))

        yield begin
