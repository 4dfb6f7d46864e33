"""How `h2log serve` is told to serve a folder: `[static]`, and options."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from h2log.app.static import StaticOptions
from h2log.config import build
from h2log.config.settings import StaticSettings


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[httpx.Client]:
    """Serve `folder/site` with the settings in `folder`; yield a client of it."""
    with subprocess.Popen(
        [sys.executable, "-m", "h2log", "serve", "site", "--insecure", "--port", "0", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            with httpx.Client(http1=False, http2=True, base_url=url) as client:
                yield client
        finally:
            server.send_signal(signal.SIGTERM)
        _, errors = server.communicate()
        assert (server.returncode, errors) == (0, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a site in it."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "guide.html").write_text("<p>guide</p>")
    (site / "notes.md").write_text("# Notes\n")
    (site / "app.css").write_text("p {}")
    return tmp_path


def test_every_option_of_a_folder_is_a_setting() -> None:
    """With the same default: what an application can choose, so can the command line."""
    assert set(StaticOptions.__annotations__) == set(StaticSettings.__struct_fields__)
    assert build({}).static.options() == StaticSettings().options()


def test_the_options_of_the_command(folder: Path) -> None:
    """Each switches something on that is off otherwise."""
    with serving(folder) as client:
        assert client.get("/").status_code == 404
        assert client.get("/nowhere", headers={"accept": "text/html"}).status_code == 404
        assert "content-security-policy" not in client.get("/guide").headers
    options = ("--listing", "--markdown", "--security", "--spa", "guide.html")
    with serving(folder, *options) as client:
        assert "guide.html" in client.get("/", headers={"accept": "text/html"}).text
        notes = client.get("/notes", headers={"accept": "text/html"})
        assert "<h1" in notes.text
        page = client.get("/nowhere", headers={"accept": "text/html", "sec-fetch-mode": "navigate"})
        assert (page.status_code, page.text) == (200, "<p>guide</p>")
        assert "content-security-policy" in page.headers


def test_the_settings_of_the_file(folder: Path) -> None:
    """Also those that have no option."""
    (folder / "h2log.toml").write_text(
        '[static]\nclean_urls = "redirect"\n[static.cache_control]\n"*.css" = "max-age=60"\n'
    )
    with serving(folder) as client:
        moved = client.get("/guide.html")
        assert (moved.status_code, moved.headers["location"]) == (308, "/guide")
        assert client.get("/app.css").headers["cache-control"] == "max-age=60"


def test_watched_pages_are_told(folder: Path) -> None:
    """`--watch` puts its script into pages, and its event stream ends when the server stops."""
    with serving(folder, "--watch") as client:
        assert "<script" in client.get("/guide").text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('[static]\nclean_urls = "maybe"\n', "static.clean_urls: expected true, false or"),
        ("[static]\nlisting = 1\n", "static.listing: expected bool"),
        ('[static]\nspa = "../secret.html"\n', "spa"),
        ('[static.cache_control]\n"*.css" = "a\\nb"\n', "cache_control"),
    ],
)
def test_a_wrong_setting_is_one_line(folder: Path, settings: str, said: str) -> None:
    """And exit code 2, before anything is served."""
    (folder / "h2log.toml").write_text(settings)
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "serve", "site", "--insecure", "--port", "0"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert said in line
