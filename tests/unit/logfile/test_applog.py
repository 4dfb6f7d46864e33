"""The application's log: ids in every line, and every message one line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from h2log.ids import request_id, session_id
from h2log.logfile.applog import LEVELS, IdFilter, LineFormatter, configure

logger = logging.getLogger("test.applog")
LINE = re.compile(
    r"\[\d\d:\d\d:\d\d\.\d{3} ([A-Z]+)\] \[(\S+) (\S+)\] (\S+) [\w<>]+ \([\w.]+:\d+\) (.*)"
)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Return where the log goes; what was configured before is back afterwards."""
    root, asyncio_logger = logging.getLogger(), logging.getLogger("asyncio")
    before = list(root.handlers), root.level, asyncio_logger.level
    made = io.StringIO()
    configure("debug", made)
    yield made
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    asyncio_logger.setLevel(before[2])


def columns(text: str) -> list[tuple[str, ...]]:
    """Return level, session, request, logger and message of each line; all must be whole."""
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(found), text
    return [match.groups() for match in found if match is not None]


def test_outside_of_a_request_ids_are_dashes(stream: io.StringIO) -> None:
    """A line of the start has no session and no request."""
    logger.info("started with %d", 3)
    assert columns(stream.getvalue()) == [("INFO", "-", "-", "test.applog", "started with 3")]


async def test_ids_follow_tasks_and_threads(stream: io.StringIO) -> None:
    """What a request starts logs under its ids, however the tasks interleave."""

    async def serve(name: str) -> None:
        session_id.set(f"s{name}")
        request_id.set(f"r{name}")
        logger.info("here")
        await asyncio.sleep(0)
        await asyncio.to_thread(logger.info, "thread")
        await asyncio.create_task(asyncio.to_thread(logger.info, "task"))

    await asyncio.gather(*(serve(name) for name in "abc"))
    logger.info("after")
    lines = columns(stream.getvalue())
    assert lines[-1][1:3] == ("-", "-")
    by_ids = sorted((session, request, message) for _, session, request, _, message in lines[:-1])
    assert by_ids == sorted(
        (f"s{name}", f"r{name}", message)
        for name in "abc"
        for message in ("here", "thread", "task")
    )


def test_extra_is_preferred_to_the_context(stream: io.StringIO) -> None:
    """Who knows the ids better says so; one of them alone is enough."""
    token = session_id.set("context")
    try:
        logger.warning("x", extra={"session_id": "s1", "request_id": "r1"})
        logger.warning("y", extra={"request_id": "r2"})
    finally:
        session_id.reset(token)
    assert [line[1:3] for line in columns(stream.getvalue())] == [("s1", "r1"), ("context", "r2")]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud800", r"\ud800"),
        ("tab\there", r"tab\there"),
        ("café 日本", "café 日本"),
        ("100%", "100%"),
    ],
)
def test_a_message_stays_one_line(stream: io.StringIO, message: str, shown: str) -> None:
    """Control characters stand as their escapes; no text of a client forges a line."""
    logger.info("%s", message)
    logger.info(message)
    assert [line[4] for line in columns(stream.getvalue())] == [shown, shown]


def test_the_record_itself_is_not_changed() -> None:
    """Another handler of the application sees the message as it was meant."""
    record = logging.LogRecord("n", logging.INFO, "f", 1, "a\n%s", ("b",), None)
    IdFilter().filter(record)
    assert LineFormatter().format(record).endswith(r" n None (f:1) a\nb")
    assert logging.Formatter().format(record) == "a\nb"


def test_a_traceback_follows_its_line(stream: io.StringIO) -> None:
    """An exception is told whole, below the line with the ids."""
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        logger.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert columns(first) == [("ERROR", "-", "-", "test.applog", "failed")]
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "    ZeroDivisionError: by zero"


def test_the_text_of_an_exception_forges_no_line(stream: io.StringIO) -> None:
    """A client's bytes in an exception's text cannot look like a line of the log."""
    forged = "[13:31:59.123 INFO] [s r] h2log all is well"
    try:
        raise ValueError(f"bad name 'x\n{forged}'")
    except ValueError:
        logger.exception("failed")
    assert [line for line in stream.getvalue().splitlines() if LINE.fullmatch(line)] == [
        stream.getvalue().splitlines()[0]
    ]


def test_the_place_is_told(stream: io.StringIO) -> None:
    """Logger, function, file and line."""
    logger.info("here")
    line = test_the_place_is_told.__code__.co_firstlineno + 2
    assert stream.getvalue().endswith(
        f"] [- -] test.applog test_the_place_is_told (test_applog.py:{line}) here\n"
    )


class Broken:
    """Something that cannot be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


CIRCLE: dict[str, object] = {}
CIRCLE["itself"] = CIRCLE


@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        ({"article": 17, "tags": ["a", None]}, {"article": 17, "tags": ["a", None]}),
        (
            {"text": "a\n[13:31:59.123 INFO]\u2028\x7f"},
            {"text": "a\n[13:31:59.123 INFO]\u2028\x7f"},
        ),
        ({"path": Path("/x")}, {"path": "PosixPath('/x')"}),
        ({"nested": {(1, 2): 3}}, {"nested": "{(1, 2): 3}"}),
        ({"number": float("nan")}, {"number": "nan"}),
        ({"circle": CIRCLE}, {"circle": "{'itself': {...}}"}),
        ({"broken": Broken()}, {"broken": "<Broken: ZeroDivisionError>"}),
        ({"session_id": "s", "x": 1}, {"x": 1}),
    ],
)
def test_extras_follow_as_json(
    stream: io.StringIO, extra: dict[str, object], shown: dict[str, object]
) -> None:
    """One indented line of printable ASCII, whatever they are; without extras there is none."""
    logger.info("with", extra=extra)
    logger.info("without")
    first, second, third = stream.getvalue().splitlines()
    assert columns(f"{first}\n{third}")[1][4] == "without"
    assert second.startswith("    {") and second.isascii() and second.isprintable()
    assert json.loads(second) == shown


def test_no_logger_or_function_forges_a_line(stream: io.StringIO) -> None:
    """Names are escaped too."""
    logging.getLogger("a\nb").info("x")
    assert len(stream.getvalue().splitlines()) == 1


def test_configured_again_it_replaces_itself(stream: io.StringIO) -> None:
    """One line for one message, at the last level, on the last stream; others' handlers stay."""
    other = io.StringIO()
    theirs = logging.StreamHandler(other)
    logging.getLogger().addHandler(theirs)
    last = io.StringIO()
    configure("info", last)
    configure("warning", last)
    logger.warning("once")
    logger.info("not at all")
    assert [line[4] for line in columns(last.getvalue())] == ["once"]
    assert stream.getvalue() == ""
    assert other.getvalue() == "once\n"


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_lets_its_own_pass(stream: io.StringIO, level: str) -> None:
    """That level and those above; asyncio's own talk begins at info."""
    configure(level, stream)
    for name in LEVELS:
        logger.log(getattr(logging, name.upper()), name)
    logging.getLogger("asyncio").debug("selector")
    shown = [line[4] for line in columns(stream.getvalue())]
    assert shown == list(LEVELS[LEVELS.index(level) :])


def test_the_default_is_standard_error(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output is for the address and, if asked for, the access log."""
    configure("info")
    logger.info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("hello\n")
    assert sys.stderr is not None


def test_one_value_that_is_no_json_leaves_the_others(stream: io.StringIO) -> None:
    """A number that is none is shown as text; what stands beside it stays what it is."""
    logger.info("x", extra={"ratio": float("nan"), "count": 2, "names": ["a"]})
    extras = json.loads(stream.getvalue().splitlines()[1])
    assert extras == {"ratio": "nan", "count": 2, "names": ["a"]}
