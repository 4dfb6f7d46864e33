"""`h2log tail`, as a person or a pipe meets it: a real process, a real terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from h2log.cli.tail import tail
from h2log.errors import UsageError

ROOT = Path(__file__).parent.parent.parent
PROGRAM = "from h2log.cli.tail import tail; tail(prog_name='h2log tail')"
DEADLINE = 60.0

SESSION = "0193a0b1c2d37e4f8a9b0c1d2e3f4a5b"
REQUEST = "0193a0b1c2d47e4f8a9b0c1d2e3f4a5c"
NOTE = b"# 2026-11-20T13:31:59.123+00:00 12 lines dropped\n"
_PERSONAL = {"NO_COLOR", "PYTHONUNBUFFERED", "PYTHONIOENCODING"}  # ours must not decide a test
COLORS = re.compile(rb"\x1b\[[0-9;]*m")


def line(status: str = "200", path: str = "/a", milliseconds: str = "7.412") -> bytes:
    """Return an access line."""
    columns = ("2026-11-20T13:31:59.123+00:00", status, milliseconds, SESSION, REQUEST, "h2", path)
    return "\t".join(columns).encode() + b"\n"


def lines(first: int, last: int) -> bytes:
    """Return access lines with the paths `/first` to `/last`."""
    return b"".join(line(path=f"/{number}") for number in range(first, last + 1))


def append(path: Path, data: bytes) -> None:
    """Append to a file that may not be there."""
    with path.open("ab") as file:
        file.write(data)


@contextmanager
def running(
    *arguments: str | Path,
    stdout: int = subprocess.PIPE,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `h2log tail` as a process of its own; it is ended when the test is done."""
    environment = {k: v for k, v in os.environ.items() if k not in _PERSONAL}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "TERM": "xterm"} | (
        env or {}
    )
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=cwd,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def output(*arguments: str | Path, **extra: str) -> bytes:
    """Return what `h2log tail` writes into a pipe; it must succeed without a word."""
    with running(*arguments, env=extra) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, b"")
    return out


def read_until(fd: int, done: Callable[[bytes], bool]) -> bytes:
    """Return what comes from `fd` until `done` with it, or until its end."""
    data = b""
    end = time.monotonic() + DEADLINE
    while not done(data):
        ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"no more came after {data[-200:]!r}"
        try:
            more = os.read(fd, 65536)
        except OSError:  # how Linux says that the other end of a terminal is closed
            break
        if not more:
            break
        data += more
    return data


def read_fd(process: subprocess.Popen[bytes]) -> int:
    """Return the descriptor that the process's output comes from."""
    assert process.stdout is not None
    return process.stdout.fileno()


def on_terminal(*arguments: str | Path, **extra: str) -> bytes:
    """Return what `h2log tail` writes to a terminal."""
    ours, theirs = os.openpty()
    try:
        with running(*arguments, stdout=theirs, env=extra) as process:
            os.close(theirs)
            data = read_until(ours, lambda _: False)
            assert process.wait(DEADLINE) == 0
            assert process.stderr is not None
            assert process.stderr.read() == b""
    finally:
        os.close(ours)
    return data.replace(b"\r\n", b"\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the path of a log with twenty lines."""
    path = tmp_path / "access.log"
    append(path, lines(1, 20))
    return path


# Into a pipe


def test_a_pipe_gets_the_last_ten_lines_as_they_are(log: Path) -> None:
    """Without options: ten lines, byte for byte."""
    assert output(log) == lines(11, 20)


@pytest.mark.parametrize(("n", "first"), [("0", 21), ("1", 20), ("20", 1), ("500", 1)])
def test_n_lines(log: Path, n: str, first: int) -> None:
    """As many as asked for, and no more than there are."""
    assert output(log, "-n", n) == lines(first, 20)


def test_a_pipe_gets_any_bytes_as_they_are(tmp_path: Path) -> None:
    """Notes, damaged lines, control characters, an unfinished end: nothing is changed."""
    path = tmp_path / "access.log"
    data = NOTE + bytes(range(256)) + b"\n" + line("503") + b"\r\n\xff\xfe\x1b[2J\nunfinished"
    append(path, data)
    assert output(path, "-n", "100") == data


def test_the_log_is_the_default_one(tmp_path: Path) -> None:
    """Without a name it is logs/access.log in the current folder."""
    (tmp_path / "logs").mkdir()
    append(tmp_path / "logs" / "access.log", lines(1, 2))
    with running(cwd=tmp_path) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, lines(1, 2), b"")


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    """`h2log tail | head -1`: no message, and no failure."""
    path = tmp_path / "access.log"
    append(path, lines(1, 50_000))
    with running(path, "-n", "50000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == line(path="/1")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE) == 0


def test_a_closed_pipe_is_noticed_while_nothing_is_logged(log: Path) -> None:
    """`h2log tail -f | head -1` does not wait for the next request to find that head has gone."""
    with running(log, "-f", "-n", "1") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == line(path="/20")
        process.stdout.close()
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


# Following


def test_following_shows_what_is_appended_across_rotations(log: Path) -> None:
    """The last lines, then new ones, and on into the new file; Ctrl-C ends it with code 0."""
    with running(log, "-f", "-n", "1") as process:
        out = read_fd(process)
        expected = line(path="/20")
        assert read_until(out, lambda data: data.endswith(b"/20\n")) == expected
        append(log, lines(21, 22))
        assert read_until(out, lambda data: data.endswith(b"/22\n")) == lines(21, 22)
        append(log, line(path="/23")[:-1])
        log.rename(log.with_name("access.log.1"))
        append(log.with_name("access.log.1"), b"\n")
        append(log, lines(24, 25))
        assert read_until(out, lambda data: data.endswith(b"/25\n")) == lines(23, 25)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=DEADLINE)
        assert (process.returncode, rest, err) == (0, b"", b"")


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_control_c_ends_a_follower_whose_reader_is_asleep(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """A full pipe that nobody reads does not keep the process from ending."""
    path = tmp_path / "access.log"
    append(path, lines(1, 50_000))
    with running(path, "-f", "-n", "50000", env=env) as process:
        assert select.select([read_fd(process)], [], [], DEADLINE)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_a_slow_reader_gets_every_byte(tmp_path: Path, env: dict[str, str]) -> None:
    """Writes that a full pipe takes in part are completed, also where writing does not block."""
    path = tmp_path / "access.log"
    append(path, lines(1, 20_000))
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    try:
        with running(path, "-n", "20000", stdout=theirs, env=env) as process:
            os.close(theirs)
            assert read_until(ours, lambda _: False) == lines(1, 20_000)
            assert process.wait(DEADLINE) == 0
    finally:
        os.close(ours)


def test_following_only_what_comes(log: Path) -> None:
    """`-n 0 -f` begins with the next line."""
    with running(log, "-f", "-n", "0") as process:
        out = read_fd(process)
        seen = b""
        number = 100
        # The process says nothing when it is ready, so lines are appended until one is seen.
        while not seen:
            append(log, line(path=f"/{number}"))
            number += 1
            if select.select([out], [], [], 0.05)[0]:
                seen = os.read(out, 65536)
            assert number < 100 + DEADLINE / 0.05
        assert re.match(rb".*\t/1\d\d\n", seen)


# On a terminal


@pytest.mark.parametrize(
    ("status", "color"),
    [("200", 32), ("304", 36), ("404", 33), ("503", 31), ("-", 35), ("103", 34)],
)
def test_a_terminal_gets_colors_by_status(tmp_path: Path, status: str, color: int) -> None:
    """2xx green, 3xx cyan, 4xx yellow, 5xx red, none magenta; ids are dim."""
    path = tmp_path / "access.log"
    append(path, line(status))
    shown = on_terminal(path)
    assert re.search(rb"\x1b\[%dm\x1b\[1m *%s\x1b\[0m" % (color, status.encode()), shown)
    for identity in (SESSION, REQUEST):
        assert b"\x1b[2m" + identity.encode() + b"\x1b[0m" in shown
    assert shown.endswith(b"  /a\n")


def test_a_terminal_gets_aligned_columns(tmp_path: Path) -> None:
    """Every column begins, or for numbers ends, at the same place."""
    path = tmp_path / "access.log"
    append(path, line() + line("-", milliseconds="12345.678") + line("404", milliseconds="0.001"))
    shown = COLORS.sub(b"", on_terminal(path)).decode()
    assert "\t" not in shown
    rows = shown.splitlines()
    assert len(rows) == 3
    assert len({row.index(SESSION) for row in rows}) == 1
    assert len({row.index("/a") for row in rows}) == 1
    assert {row[: row.index(SESSION)].rstrip()[-4] for row in rows} == {"."}


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [((), {"NO_COLOR": "1"}), (("--color", "never"), {}), ((), {"TERM": "dumb"})],
)
def test_a_terminal_without_colors(
    log: Path, arguments: tuple[str, ...], extra: dict[str, str]
) -> None:
    """NO_COLOR, a dumb terminal and `--color never` keep the columns and leave the colours."""
    shown = on_terminal(log, "-n", "1", *arguments, **extra)
    assert b"\x1b" not in shown
    assert shown.count(b"\n") == 1
    assert b"+00:00  200       7.412  " + SESSION.encode() in shown


def test_an_empty_no_color_is_none(log: Path) -> None:
    """NO_COLOR counts when it is not empty, as no-color.org has it."""
    assert b"\x1b[32m" in on_terminal(log, NO_COLOR="")


def test_colors_can_be_asked_for(log: Path) -> None:
    """`--color always` colours a pipe too, and counts more than NO_COLOR; `auto` leaves it raw."""
    assert b"\x1b[32m" in output(log, "--color", "always", NO_COLOR="1")
    assert output(log, "--color", "auto") == lines(11, 20)
    assert output(log, "--color", "never") == lines(11, 20)


@pytest.mark.parametrize("arguments", [(), ("--color", "never")])
def test_no_control_character_of_a_log_reaches_a_terminal(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Whatever bytes are in a file: only newlines and our own colours are sent to a terminal."""
    path = tmp_path / "access.log"
    nasty = (
        bytes(range(256)).replace(b"\n", b"")
        + "\x85\u2028\u202e\u200b\ufeff".encode()
        + b"\x1b]0;title\x07"
    )
    append(path, nasty + b"\n# " + nasty + b"\n" + line().replace(b"/a", b"/" + nasty) + nasty)
    shown = COLORS.sub(b"", on_terminal(path, *arguments)).decode()
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert shown.count("\n") == 4
    assert shown.count("\\x1B]0;title\\x07") == 4


def test_a_line_that_does_not_parse_is_shown_as_it_is(tmp_path: Path) -> None:
    """Another text, UTF-8 included, is neither changed nor coloured."""
    path = tmp_path / "access.log"
    append(path, 'GET /\\ "grüße" ✓\n'.encode())
    assert on_terminal(path, PYTHONUTF8="1") == 'GET /\\ "grüße" ✓\n'.encode()


def test_a_terminal_that_cannot_show_a_character_gets_its_number(tmp_path: Path) -> None:
    """A character outside the terminal's encoding is no crash."""
    path = tmp_path / "access.log"
    append(path, "grüße\n".encode())
    assert on_terminal(path, PYTHONIOENCODING="ascii") == b"gr\\xfc\\xdfe\n"


def test_a_note_stands_out(tmp_path: Path) -> None:
    """A note of the log itself is bold."""
    path = tmp_path / "access.log"
    append(path, NOTE)
    assert on_terminal(path) == b"\x1b[1m" + NOTE[:-1] + b"\x1b[0m\n"


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-n", "-1"), "-1 is not in the range x>=0"),
        (("-n", "many"), "'many' is not a valid integer"),
        (("--color", "blue"), "'blue' is not one of"),
        (("a", "b"), "unexpected extra argument"),
    ],
)
def test_wrong_options_are_told(arguments: tuple[str, ...], message: str) -> None:
    """A wrong option ends with code 2 and what is wrong with it."""
    result = CliRunner().invoke(tail, arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("arguments", [(), ("-f",)])
def test_no_log_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A log that is not there is left to the command line's root to tell."""
    path = tmp_path / "access.log"
    result = CliRunner().invoke(tail, [str(path), *arguments])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).startswith(f"no log at {path} yet; start the server")
    assert result.output == ""


def test_without_a_file_it_is_the_settings(tmp_path: Path) -> None:
    """The first access log that is a file is shown; of the defaults that is logs/access.log."""
    settings = tmp_path / "h2log.toml"
    settings.write_text(
        '[[log.access]]\npath = "-"\n[[log.access]]\npath = "there.log"\nformat = "tiny"\n'
    )
    (tmp_path / "there.log").write_text("GET / 200\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "access.log").write_text("default\n")
    for arguments, wanted in (((), b"GET / 200\n"), (("--config", "none.json"), b"default\n")):
        (tmp_path / "none.json").write_text("{}")
        with running(*arguments, cwd=tmp_path) as process:
            out, err = process.communicate(timeout=DEADLINE)
        assert (out, err) == (wanted, b"")


def test_settings_without_a_file_are_a_usage_error(tmp_path: Path) -> None:
    """There is nothing to show, and what to do is said."""
    settings = tmp_path / "other.toml"
    settings.write_text('[[log.access]]\npath = "-"\n')
    result = CliRunner().invoke(tail, ["--config", str(settings)])
    assert isinstance(result.exception, UsageError)
    assert "name the file to show" in str(result.exception)
