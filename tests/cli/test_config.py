"""`h2log config`, and the settings of a server from file, environment and flags."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import h2log
from tests.support import PATIENCE

EXAMPLE = Path(h2log.__file__).parent / "examples" / "h2log.toml"

GOOD = """
[server]
port = 8000
insecure = true

[limits]
send_buffer = "2MB"
budgets.ping = { burst = 5, rate = 1 }

[[log.access]]
path = "logs/a.log"
rotate = { every = "daily", size = "1GB", name = "a_%Y-%m-%d.log", keep = 10, compress = "gzip" }

[[log.access]]
path = "-"
format = ":method :url :status"
skip = "status < 400"

[log.session]
path = "logs/sessions.log"
rotate.every = 3600

[log.app]
level = "info"
path = "logs/app.log"
"""

BAD = """
port = 1
[server]
prot = 1
[limits]
max_streams = "many"
budgets.pong = { burst = 1, rate = 1 }
[[log.access]]
skip = "statu < 400"
format = ":statsu"
rotate = { every = "dayly", size = "huge", name = "a/b", keep = "some", timezone = "Moon" }
[log.session]
format = "tiny"
[log.app]
level = "loud"
"""

PROBLEMS = [
    "port: unknown key; did you mean server.port?",
    "server.prot: unknown key; did you mean server.port?",
    'limits.max_streams: expected int, got "many"',
    "limits.budgets.pong: unknown budget; there are ",
    "log.access[0].skip: column 1: unknown name statu; did you mean status?",
    "log.access[0].format: ",
    "log.access[0].rotate.every: expected ",
    'log.access[0].rotate.size: expected bytes or a size such as "64KB", got "huge"',
    "log.access[0].rotate.name: expected ",
    "log.access[0].rotate.keep: expected ",
    "log.access[0].rotate.timezone: expected ",
    "log.session.format: expected one of ",
    'log.app.level: expected one of debug, info, warning, error, critical, got "loud"',
]


def h2log_in(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder` to its end."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("H2LOG_")}
    return subprocess.run(
        [sys.executable, "-m", "h2log", *arguments],
        cwd=folder,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )


def shown(folder: Path, *arguments: str, **environ: str) -> dict[str, tuple[Any, str]]:
    """Return what `config show --json` says of each key: its value and source."""
    done = h2log_in(folder, "config", "show", "--json", *arguments, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return {key: (v["value"], v["source"]) for key, v in json.loads(done.stdout).items()}


def mistake(folder: Path, *arguments: str, **environ: str) -> str:
    """Run what must fail; return its one line."""
    done = h2log_in(folder, *arguments, **environ)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    return line


# config check


def test_a_right_file_is_ok(tmp_path: Path) -> None:
    """It says so, and what the file asks for."""
    (tmp_path / "h2log.toml").write_text(GOOD)
    done = h2log_in(tmp_path, "config", "check", "h2log.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "h2log.toml: ok",
        "listens on   http://127.0.0.1:8000",
        "access log   logs/a.log (h2log, daily, 1GB, keeps 10, gzip)",
        "access log   standard output (:method :url :status, without status < 400)",
        "session log  logs/sessions.log (h2log, 1h)",
        "own log      logs/app.log (info and above, daily, keeps 10)",
        f"sets         18 of {len(shown(tmp_path))} settings",
    ]
    assert h2log_in(tmp_path, "config", "check").stdout == done.stdout


def test_the_example_is_ok(tmp_path: Path) -> None:
    """And is the defaults."""
    done = h2log_in(tmp_path, "config", "check", str(EXAMPLE))
    assert (done.returncode, done.stderr) == (0, "")
    assert "listens on   https://127.0.0.1:8443" in done.stdout
    assert "session log  off" in done.stdout
    assert "own log      standard error (warning and above)" in done.stdout


def test_every_problem_has_its_line(tmp_path: Path) -> None:
    """With the file and the key; the exit code is 2."""
    (tmp_path / "bad.toml").write_text(BAD)
    done = h2log_in(tmp_path, "config", "check", "bad.toml")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == len(PROBLEMS)
    for line, problem in zip(lines, PROBLEMS, strict=True):
        assert line.startswith(f"h2log: bad.toml: {problem}")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.toml", "[server\n", "a.toml: line 1, column "),
        ("a.json", '{"server":\n', "a.json: line 2, column 1: expecting value"),
        ("a.toml", None, "no file a.toml"),
    ],
)
def test_a_file_that_is_none_is_one_line(
    tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    """A syntax error has its place; a missing file is named."""
    if content is not None:
        (tmp_path / name).write_text(content)
    assert mistake(tmp_path, "config", "check", name).startswith(f"h2log: {words}")


def test_without_a_file_there_is_nothing_to_check(tmp_path: Path) -> None:
    """And that is said."""
    assert mistake(tmp_path, "config", "check") == (
        "h2log: no h2log.toml here; name the file to check"
    )


# config show


def test_defaults_are_shown_as_such(tmp_path: Path) -> None:
    """Every key of the tree, from nowhere."""
    values = shown(tmp_path)
    assert values["server.port"] == (8443, "default")
    assert values["log.access[0].path"] == ("logs/access.log", "default")
    assert values["limits.budgets"] == ({}, "default")
    assert {source for _, source in values.values()} == {"default"}


def test_each_source_wins_over_the_one_before(tmp_path: Path) -> None:
    """Default, file, environment, flag: key by key."""
    (tmp_path / "h2log.toml").write_text(
        '[server]\nhost = "::1"\nport = 1\nbacklog = 1\ninsecure = true\n'
    )
    environ = {"H2LOG_SERVER_PORT": "2", "H2LOG_SERVER__BACKLOG": "2"}
    values = shown(tmp_path, "--port", "3", **environ)
    assert values["server.host"] == ("::1", "h2log.toml")
    assert values["server.backlog"] == (2, "environment H2LOG_SERVER__BACKLOG")
    assert values["server.port"] == (3, "flag --port")
    assert values["server.insecure"] == (True, "h2log.toml")
    assert values["server.drain_timeout"] == (10.0, "default")


def test_a_flag_wins_with_its_default_too(tmp_path: Path) -> None:
    """What counts is that it was given."""
    (tmp_path / "h2log.toml").write_text("[server]\nport = 1\n[log.app]\nlevel = 'info'\n")
    values = shown(tmp_path, "--port", "8443", "--log-level", "warning")
    assert values["server.port"] == (8443, "flag --port")
    assert values["log.app.level"] == ("warning", "flag --log-level")


def test_every_flag_has_its_key(tmp_path: Path) -> None:
    """And the tree's type."""
    arguments = ["--host", "::1", "--cert", "c", "--key", "k", "--insecure"]
    values = shown(tmp_path, *arguments, "--drain-timeout", "3")
    found = {key: value for key, (value, source) in values.items() if source.startswith("flag")}
    assert found == {
        "server.host": "::1",
        "tls.cert": "c",
        "tls.key": "k",
        "server.insecure": True,
        "server.drain_timeout": 3.0,
    }


def test_the_access_logs_of_flags_keep_the_rest(tmp_path: Path) -> None:
    """The first flag is the first output's path; outputs beyond the flags are dropped."""
    (tmp_path / "h2log.toml").write_text(GOOD)
    values = shown(tmp_path, "--access-log", "x.log")
    assert values["log.access[0].path"] == ("x.log", "flag --access-log")
    assert values["log.access[0].rotate.every"] == ("daily", "h2log.toml")
    assert "log.access[1].path" not in values
    arguments = ["--access-log", "x", "--access-log", "y", "--access-log", "z"]
    values = shown(tmp_path, "--access-format", "dev", *arguments)
    assert [values[f"log.access[{n}].path"][0] for n in range(3)] == ["x", "y", "z"]
    for n in range(3):
        assert values[f"log.access[{n}].format"] == ("dev", "flag --access-format")
    assert values["log.access[1].skip"] == ("status < 400", "h2log.toml")
    assert values["log.access[2].skip"] == ("", "default")


def test_a_variable_replaces_the_outputs_or_changes_all(tmp_path: Path) -> None:
    """As JSON it is the list; with a key it is that of every output."""
    (tmp_path / "h2log.toml").write_text(GOOD)
    values = shown(tmp_path, H2LOG_LOG_ACCESS='[{"path": "-"}]')
    assert values["log.access[0].path"] == ("-", "environment H2LOG_LOG_ACCESS")
    assert values["log.access[0].rotate.every"] == ("never", "default")
    assert "log.access[1].path" not in values
    values = shown(tmp_path, H2LOG_LOG_ACCESS_OVERLOAD="block")
    for n in range(2):
        assert values[f"log.access[{n}].overload"][0] == "block"
    assert shown(tmp_path, H2LOG_LOG_ACCESS="[]")["log.access"][0] == []


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_the_file_may_be_named(tmp_path: Path, how: str) -> None:
    """By `--config` or H2LOG_CONFIG; the one that lies here is then not read."""
    (tmp_path / "h2log.toml").write_text("nonsense")
    (tmp_path / "other.json").write_text('{"server": {"port": 7}}')
    if how == "flag":
        values = shown(tmp_path, "--config", "other.json")
    else:
        values = shown(tmp_path, H2LOG_CONFIG="other.json")
    assert values["server.port"] == (7, "other.json")


def test_a_table_shows_what_json_does(tmp_path: Path) -> None:
    """A line a key, nothing wrapped; units and brackets as they are."""
    (tmp_path / "h2log.toml").write_text(
        "[[log.access]]\nformat = ':method [bold] :url [/bold] :res[content-length] ' \n"
    )
    done = h2log_in(tmp_path, "config", "show", COLUMNS="40")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["key", "value", "source"]
    assert len(rows) == len(shown(tmp_path))
    [row] = [row for row in rows if row.startswith("log.access[0].format")]
    assert '":method [bold] :url [/bold] :res[content-length] "' in row
    assert row.rstrip().endswith("h2log.toml")
    [row] = [row for row in rows if row.startswith("limits.send_buffer")]
    assert row.split() == ["limits.send_buffer", '"1MB"', "default"]
    assert "\x1b" not in done.stdout


# Mistakes, wherever they stand


@pytest.mark.parametrize("command", [["config", "show"], ["serve"], ["run", "nothing_here:app"]])
def test_a_mistake_is_told_with_its_source(tmp_path: Path, command: list[str]) -> None:
    """By every command that starts a server, in one line, with code 2."""
    if command[0] == "run":
        (tmp_path / "nothing_here.py").write_text("import h2log\napp = h2log.App()\n")
    (tmp_path / "h2log.toml").write_text('[limits]\nmax_streams = "many"\n')
    assert mistake(tmp_path, *command) == (
        'h2log: h2log.toml: limits.max_streams: expected int, got "many"'
    )
    (tmp_path / "h2log.toml").write_text("")
    assert mistake(tmp_path, *command, H2LOG_SERVER_PORT="x") == (
        'h2log: environment H2LOG_SERVER_PORT: server.port: expected int, got "x"'
    )


def test_every_source_has_its_name(tmp_path: Path) -> None:
    """A variable, a flag, the file itself."""
    command = ["config", "show"]
    assert mistake(tmp_path, *command, H2LOG_SERVER_PROT="1") == (
        "h2log: environment H2LOG_SERVER_PROT: unknown key; did you mean H2LOG_SERVER_PORT?"
    )
    assert mistake(tmp_path, *command, H2LOG_LOG_ACCESS_SKIP="status = 1").startswith(
        "h2log: environment H2LOG_LOG_ACCESS_SKIP: log.access.skip: column 8: invalid syntax"
    )
    assert mistake(tmp_path, *command, "--access-format", "") == (
        'h2log: flag --access-format: log.access.format: expected a text, got ""'
    )
    assert mistake(tmp_path, *command, "--access-log", "a", "--access-log", "./a").startswith(
        "h2log: flag --access-log: log.access[1].path: is the file of log.access[0].path, too"
    )
    assert mistake(tmp_path, *command, "--config", "nowhere.toml") == (
        "h2log: no file nowhere.toml; name an existing one"
    )


# A server


def test_a_server_takes_the_file_of_its_folder(tmp_path: Path) -> None:
    """Cleartext, a free port and the log's place all come from h2log.toml."""
    (tmp_path / "h2log.toml").write_text(
        '[server]\nport = 0\ninsecure = true\n[[log.access]]\npath = "here/a.log"\n'
    )
    with subprocess.Popen(
        [sys.executable, "-m", "h2log", "serve"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            assert httpx.get(f"{url}/").status_code == 200
            process.send_signal(signal.SIGTERM)
            out, errors = process.stdout.read(), process.stderr.read()
            process.wait(PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")
    assert f"access log  {tmp_path}/here/a.log" in out
    assert len((tmp_path / "here/a.log").read_text().splitlines()) == 1
