"""The README's examples, run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from h2log.access.formats import compile as compile_format
from h2log.access.lines import parse
from h2log.cli import cli
from tests.integrations.other_server import OtherServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_example_line_is_a_line() -> None:
    """The line that the README explains parses, and its table's cells are that line's columns."""
    [line] = [block for block in blocks("text") if block.count("\t") == 6]
    entry = parse(line.removesuffix("\n"))
    table = README.split("| column | here |")[1].split("\n\n")[0]
    cells = re.findall(r"^\| [a-z ]+ \| `([^`]+)` \|", table, re.MULTILINE)
    assert len(cells) == 7
    for cell, column in zip(cells, line.removesuffix("\n").split("\t"), strict=True):
        start, _, end = cell.partition("…")
        assert column.startswith(start)
        assert column.endswith(end)
    assert entry.status == 200


def test_the_scripts_it_names_are_there() -> None:
    """Every scripts/… that the README names exists and can be run."""
    for name in set(re.findall(r"scripts/([a-z-]+)", README)):
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111, name


def test_the_commands_and_options_it_names_are_there() -> None:
    """Every `h2log` command in the cheat sheet exists, and so does every option."""
    for name in set(re.findall(r"^\| `h2log ([a-z]+)", README, re.MULTILINE)):
        assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0, name
    shown = CliRunner().invoke(cli, ["run", "--help"]).output
    table = README.split("| option of `serve` and `run` |")[1].split("\n\n")[0]
    for option in re.findall(r"`(--[a-z-]+)`", table.replace("|", "\n")):
        assert option in shown
    shown = CliRunner().invoke(cli, ["serve", "--help"]).output
    table = README.split("| option of `serve` |")[1].split("\n\n")[0]
    for option in re.findall(r"`(--[a-z-]+)", table):
        assert option in shown


@pytest.fixture
def hello(tmp_path: Path) -> subprocess.Popen[str]:
    """The README's application, started as the README starts it (cleartext, a free port)."""
    [source] = [block for block in blocks("python") if block.startswith("# hello.py")]
    (tmp_path / "hello.py").write_text(source)
    [command] = [block for block in blocks("sh") if "h2log run hello:app" in block]
    arguments = command.split()[1:]
    return subprocess.Popen(
        [sys.executable, "-m", "h2log", *arguments, "--port", "0", "--insecure"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_application_works(hello: subprocess.Popen[str], tmp_path: Path) -> None:
    """The README's application answers as it says, and its own log carries the ids."""
    with hello:
        try:
            assert hello.stdout is not None
            url = hello.stdout.readline().strip()
            with httpx.Client(http1=False, http2=True, base_url=url) as client:
                greeting = client.get("/hello/world")
                assert greeting.text == "hello world\n"
                made = client.post("/orders/7", json={"item": "ink", "count": 2})
                assert (made.status_code, made.json()) == (201, {"id": 7, "item": "ink"})
                wrong = client.post("/orders/7", json={"item": "ink", "count": "two"})
                assert (wrong.status_code, "count" in wrong.text) == (422, True)
                assert client.get("/files/hello.py").text.startswith("# hello.py")
        finally:
            hello.terminate()
        errors = hello.communicate()[1]
        assert hello.returncode == 0
    lines = [parse(line) for line in (tmp_path / "logs/access.log").read_text().splitlines()]
    assert [line.status for line in lines] == [200, 201, 422, 200]
    assert len({line.session for line in lines}) == 1
    assert lines[0].request == greeting.headers["x-request-id"]
    [said] = [line for line in errors.splitlines() if "greeting" in line]
    assert f"[{lines[0].session} {lines[0].request}]" in said


MAIN = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""


def test_any_asgi_application(tmp_path: Path) -> None:
    """An ASGI application is served as the README starts it."""
    (tmp_path / "main.py").write_text(MAIN)
    [command] = [block for block in blocks("sh") if "h2log run main:app" in block]
    process = subprocess.Popen(
        [sys.executable, "-m", "h2log", *command.split()[1:], "--port", "0", "--insecure"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with httpx.Client(http1=False, http2=True, base_url=url) as client:
                assert client.get("/").text == "hello"
        finally:
            process.terminate()
    [line] = (tmp_path / "logs/access.log").read_text().splitlines()
    assert (parse(line).status, parse(line).version) == (200, "h2")


def test_the_middleware(tmp_path: Path) -> None:
    """The README's middleware writes the line of a request that another server answers."""
    [source] = [block for block in blocks("python") if block.startswith("# traced.py")]
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "traced.py").write_text(source)
    log = tmp_path / "logs" / "access.log"
    (tmp_path / "h2log.toml").write_text('[[log.access]]\npath = "logs/access.log"\n')
    command = ["PYTHON", "-m", "uvicorn", "traced:app", "--port", "{port}"]
    with OtherServer(command, tmp_path / "log", {"PYTHONPATH": f"{ROOT}:{tmp_path}"}) as server:
        answer = httpx.get(f"{server.url}/some?q=1")
        assert answer.text == "hello"
    [line] = [parse(line) for line in log.read_text().splitlines()]
    assert (line.status, line.version, line.path) == (200, "1.1", "/some?q=1")
    assert line.request == answer.headers["x-request-id"]


def test_the_settings_are_settings(tmp_path: Path) -> None:
    """The README's h2log.toml is accepted by the check that it names."""
    [settings] = blocks("toml")
    (tmp_path / "h2log.toml").write_text(settings)
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "config", "check", "h2log.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_format_string_is_one() -> None:
    """The README's format string compiles."""
    [command] = [block for block in blocks("sh") if "--access-format" in block]
    line = compile_format(command.split("'")[1])
    assert line.kind == "text"


def test_the_examples_are_excerpts() -> None:
    """Each example in the README is under 20 lines, all of them lines of the file that it names."""
    found = [block for block in blocks("python") if block.startswith("# h2log/examples/")]
    assert len(found) == 3
    for block in found:
        name, *lines = block.splitlines()
        assert len(lines) < 20
        source = iter((ROOT / name.removeprefix("# ")).read_text().splitlines())
        for line in lines:
            assert not line or line in source, f"not in {name}, or not in this order: {line}"
