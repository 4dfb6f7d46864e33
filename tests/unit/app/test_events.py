"""Server-sent events (HTML standard, section 9.2): how they are written, and that they are read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.events import KEEP_ALIVE, Event, EventStream


def read_events(stream: bytes) -> list[dict[str, str]]:
    """Read a stream as section 9.2.6 has a client do it, with the last id and the retry time."""
    text = stream.decode()
    found: list[dict[str, str]] = []
    data, kind, last_id, retry = "", "", "", ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if data:
                found.append(
                    {"data": data[:-1], "event": kind or "message", "id": last_id, "retry": retry}
                )
            data = kind = ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isdigit():
            retry = value
    return found


@pytest.mark.parametrize(
    ("event", "sent"),
    [
        (Event("a"), b"data: a\n\n"),
        (Event("a\nb"), b"data: a\ndata: b\n\n"),
        (Event("a\r\nb\rc"), b"data: a\ndata: b\ndata: c\n\n"),
        (Event("a\n"), b"data: a\ndata: \n\n"),
        (Event(""), b"data: \n\n"),
        (Event(" a"), b"data:  a\n\n"),
        (Event("a\x0bb\u2028c"), "data: a\x0bb\u2028c\n\n".encode()),
        (Event("é"), "data: é\n\n".encode()),
        (Event("a", "tick"), b"event: tick\ndata: a\n\n"),
        (Event("a", id="7"), b"id: 7\ndata: a\n\n"),
        (Event("a", id=""), b"id: \ndata: a\n\n"),
        (Event(retry=3000), b"retry: 3000\n\n"),
        (Event(retry=0), b"retry: 0\n\n"),
        (Event(comment="hello\nthere"), b": hello\n: there\n\n"),
        (
            Event("a", "e", "1", 2, "c"),
            b": c\nid: 1\nevent: e\nretry: 2\ndata: a\n\n",
        ),
        (Event.json({"a": [1, "é"]}), '{"a":[1,"é"]}'.join(("data: ", "\n\n")).encode()),
    ],
)
def test_an_event_is_lines(event: Event, sent: bytes) -> None:
    """Each field a line, data a line for each of its own, and an empty one at the end."""
    assert event.encode() == sent


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        ({"event": "a\nb"}, ValueError, "the type of an event is one line"),
        ({"event": "a\r"}, ValueError, "the type of an event is one line"),
        ({"id": "a\nb"}, ValueError, "the id of an event is one line"),
        ({"id": "a\0b"}, ValueError, "without NUL"),
        ({"retry": -1}, ValueError, "retry is whole milliseconds"),
        ({"retry": 1.5}, ValueError, "retry is whole milliseconds"),
        ({"retry": True}, ValueError, "retry is whole milliseconds"),
        ({"data": b"a"}, TypeError, "the data of an event is bytes, expected str"),
        ({"data": {"a": 1}}, TypeError, "for JSON there is Event.json"),
        ({"id": 7}, TypeError, "the id of an event is int"),
    ],
)
def test_what_would_be_another_event_is_refused(
    fields: dict[str, Any], kind: type[Exception], said: str
) -> None:
    """A field cannot smuggle another one in, and what is no text is told."""
    with pytest.raises(kind, match=said):
        Event(**fields)


NAMES = st.text().filter(lambda text: not set(text) & set("\r\n\0"))


@given(st.lists(st.tuples(st.text(), NAMES, NAMES)))
def test_a_client_reads_what_was_sent(events: list[tuple[str, str, str]]) -> None:
    """Data, type and id of every event, whatever is in them; line breaks in data become LF."""
    sent = b"".join(Event(*event).encode() + KEEP_ALIVE for event in events)
    lines = [
        (data.replace("\r\n", "\n").replace("\r", "\n"), kind or "message", last)
        for data, kind, last in events
        if not any(0xD800 <= ord(c) < 0xE000 for c in data + kind + last)
    ]
    if len(lines) != len(events):
        return
    # A leading byte order mark is the stream's (section 9.2.5), and cannot be an event's here.
    assert not sent.startswith(b"\xef\xbb\xbf")
    read = [(event["data"], event["event"], event["id"]) for event in read_events(sent)]
    assert read == lines


async def ticks(*events: Any) -> AsyncIterator[Any]:
    for event in events:
        yield event


async def test_a_stream_takes_events_and_texts() -> None:
    """A text is an event of data alone."""
    stream = EventStream(ticks("a", Event("b", "c")))
    assert [piece async for piece in stream] == [b"data: a\n\n", b"event: c\ndata: b\n\n"]
    assert stream.keep_alive == 15


@pytest.mark.parametrize("wrong", [b"a", 1, None, {"data": "a"}])
async def test_what_is_no_event_is_told(wrong: object) -> None:
    """The iteration raises TypeError that names it."""
    stream = EventStream(ticks("a", wrong))
    assert await anext(stream) == b"data: a\n\n"
    with pytest.raises(TypeError, match=f"gave {type(wrong).__name__}, expected Event or str"):
        await anext(stream)


def test_a_source_is_asynchronous() -> None:
    """A list, a generator or a function that was not called is a TypeError at once."""
    for wrong in (["a"], iter("a"), ticks, None):
        source: Any = wrong
        with pytest.raises(TypeError, match="events come from an asynchronous iterable"):
            EventStream(source)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_keep_alive_is_a_time(seconds: float) -> None:
    """Above 0; None is none."""
    with pytest.raises(ValueError, match="keep_alive must be seconds above 0"):
        EventStream(ticks(), seconds)
    assert EventStream(ticks(), None).keep_alive is None


async def test_closing_a_stream_closes_its_source() -> None:
    """A generator's `finally` runs when nobody listens any more."""
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    stream = EventStream(source())
    await anext(stream)
    await stream.aclose()
    assert closed == [True]


def test_json_is_what_json_reads() -> None:
    """Data of `Event.json` is JSON, on one line."""
    sent = Event.json({"text": "a\nb"}, "e", "1", 5)
    assert sent.data is not None
    assert json.loads(sent.data) == {"text": "a\nb"}
    assert sent.encode().count(b"data: ") == 1
    assert (sent.event, sent.id, sent.retry) == ("e", "1", 5)
