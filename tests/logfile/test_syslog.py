"""A log that goes to a syslog collector: what its messages are."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from h2log.errors import UsageError
from h2log.logfile.applog import AppLog
from h2log.logfile.writer import LogWriter
from h2log.server.certificates import Certificates
from tests.logfile.collector import (
    KINDS,
    DatagramCollector,
    StreamCollector,
    came,
    collector_of,
    data,
    with_options,
)
from tests.logfile.numbered import Record, line, numbers, put_many, written
from tests.support import eventually


def _accepted(collector: StreamCollector, count: int) -> bool:
    return collector.accepted == count


@pytest.mark.parametrize("kind", KINDS)
async def test_each_line_is_a_message(kind: str, tmp_path: Path, certs: Certificates) -> None:
    """All of them, in order, each with a header that tells where it comes from."""
    before = datetime.now(UTC).isoformat(timespec="microseconds")
    with collector_of(kind, tmp_path, certs) as collector:
        url = with_options(collector, certs, facility="local3", severity="notice", app="shop")
        writer = LogWriter(url, line, 0.001)
        await writer.open()
        for n in range(1, 1001):
            writer.put(Record())
            if n % 50 == 0:  # a collector of datagrams has a small buffer
                await written(writer)
                await eventually(came(collector, n))
        await writer.close()
        messages = collector.messages
    assert numbers(data(collector)) == list(range(1, 1001))
    assert [message.sequence for message in messages] == list(range(1, 1001))
    assert {(m.priority, m.app, m.id, m.marked) for m in messages} == {
        (19 * 8 + 5, "shop", "access", False)
    }
    assert {(m.host, m.process) for m in messages} == {(socket.gethostname(), str(os.getpid()))}
    stamps = [message.stamp for message in messages]
    assert stamps == sorted(stamps)
    assert before[:26] <= stamps[0].rstrip("Z") <= datetime.now(UTC).isoformat()
    health = writer.health()
    assert (health.written, health.dropped, health.failures, health.reopened) == (1000, 0, 0, 0)
    assert (health.path, health.file) == (url, url)
    assert not writer.stuck


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_ascii_is_marked(kind: str, tmp_path: Path, certs: Certificates) -> None:
    """UTF-8 begins with a byte order mark (RFC 5424 section 6.4), and arrives as it is."""
    texts = [
        "Grüße aus 東京 🚀",
        "plain",
        "tab\there",
        "",
        'quotes " ] \\',
        "\u2028",
        "%s 12 <34>1",
    ]
    with collector_of(kind, tmp_path, certs) as collector:
        writer = LogWriter(with_options(collector, certs), lambda text: f"{text}\n", 0.001)
        await writer.open()
        for text in texts:
            writer.put(text)
        await writer.close()
        await eventually(lambda: len(collector.received) == len(texts))
    assert [(m.text, m.marked) for m in collector.messages] == [
        (text, not text.isascii()) for text in texts
    ]


@pytest.mark.parametrize("kind", ["unix", "unix stream", "tcp", "tls"])
async def test_a_collector_that_is_down_at_the_start(
    kind: str, tmp_path: Path, certs: Certificates
) -> None:
    """Stops the start, as a file does that cannot be opened; the reason and the remedy are told."""
    with collector_of(kind, tmp_path, certs) as collector:
        url = with_options(collector, certs)
    writer = LogWriter(url, line)
    with pytest.raises(UsageError) as caught:
        await writer.open()
    assert str(caught.value).startswith(f"cannot open the access log {url}: Connection refused; ")
    await writer.close()


async def test_a_host_that_has_no_address() -> None:
    """Stops the start for UDP, too."""
    for url in ("syslog://collector.invalid", "syslog+tcp://collector.invalid"):
        with pytest.raises(
            UsageError, match=rf"the access log {url.replace('+', '.')}: .+; choose"
        ):
            await LogWriter(url, line).open()


async def test_a_socket_that_is_none(tmp_path: Path) -> None:
    """A missing one, and a file."""
    (tmp_path / "file").touch()
    for name, reason in (("none", "No such file or directory"), ("file", "Connection refused")):
        with pytest.raises(UsageError, match=f"{name}: {reason}; choose"):
            await LogWriter(f"syslog://{tmp_path}/{name}", line).open()


async def test_another_address_of_the_host_is_tried() -> None:
    """`localhost` may be ::1 first, where nobody listens."""
    with DatagramCollector() as collector:
        port = collector.url.rpartition(":")[2]
        writer = LogWriter(f"syslog://localhost:{port}", line, 0.001)
        await writer.open()
        await put_many(writer, 10)
        await eventually(came(collector, 10))
        await writer.close()
    assert numbers(data(collector)) == list(range(1, 11))


async def test_a_collector_that_accepts_nobody(tmp_path: Path) -> None:
    """Its queue is full: that is told, at the start and later."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        writer = LogWriter(f"syslog://{path}", line, 0.001)
        await writer.open()
        other.settimeout(5)
        with pytest.raises(UsageError, match="the collector accepts no connections"):
            await LogWriter(f"syslog://{path}", line).open()
        first, _ = listener.accept()
        first.close()
        other.connect(path)
        await put_many(writer, 1)
        await eventually(lambda: writer.health().failing == "the collector accepts no connections")
        await writer.close()
        assert (writer.written, writer.dropped) == (0, 1)


@pytest.mark.parametrize("kind", ["udp", "unix"])
async def test_a_line_longer_than_a_datagram_is_cut(
    kind: str, tmp_path: Path, certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so itself, is counted, and is told once; those around it are whole."""
    with collector_of(kind, tmp_path, certs) as collector:
        writer = LogWriter(collector.url, lambda text: text, 0.001)
        await writer.open()
        texts = ["first", "x" * 900_000, "ü" * 400_000, "last"]
        for text in texts:
            writer.put(text)
        await written(writer)
        await eventually(came(collector, 4))
        await writer.close()
    first, long, wide, last = collector.messages
    assert (first.text, last.text) == ("first", "last")
    for message, char, whole in ((long, "x", 900_000), (wide, "ü", 800_003)):
        text, _, mark = message.text.partition(" #cut bytes=")
        assert set(text) == {char} and len(text) > 30_000
        # The whole of the message: the line and its header.
        assert whole < int(mark) < whole + 200
    assert (writer.written, writer.dropped, writer.health().cut) == (4, 0, 2)
    assert sum("is cut" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("kind", ["unix stream", "tcp", "tls"])
async def test_a_stream_takes_lines_of_any_length(
    kind: str, tmp_path: Path, certs: Certificates
) -> None:
    """Longer than every buffer on the way."""
    with collector_of(kind, tmp_path, certs) as collector:
        writer = LogWriter(with_options(collector, certs), lambda text: text, 0.001)
        await writer.open()
        texts = ["first", "ü" * 5_000_000, "last"]
        for text in texts:
            writer.put(text)
        await writer.close()
        await eventually(came(collector, 3))
    assert collector.texts == texts
    assert (writer.written, writer.health().cut) == (3, 0)


async def test_the_header_comes_first_and_once() -> None:
    """As on a pipe; it is no line that counts."""

    class Format:
        header = "#Fields: number text"

        def __call__(self, record: Record) -> str:
            return line(record)

    with StreamCollector() as collector:
        writer = LogWriter(collector.url, Format(), 0.001)
        await writer.open()
        await put_many(writer, 10)
        await eventually(came(collector, 11))
        await asyncio.to_thread(collector.stop)
        collector.start()
        await put_many(writer, 10)
        await written(writer)
        await writer.close()
        await eventually(came(collector, 21))
    first, *rest = collector.texts
    assert first == "#Fields: number text"
    assert numbers("".join(f"{text}\n" for text in rest).encode()) == list(range(1, 21))
    assert writer.written == 20


async def test_reopen_connects_anew() -> None:
    """What SIGUSR1 asks for: the name is resolved again, and every line comes once."""
    with StreamCollector() as collector:
        writer = LogWriter(collector.url, line, 0.001)
        await writer.open()
        for turn in range(1, 4):
            await put_many(writer, 100)
            await written(writer)
            writer.reopen()
            await eventually(partial(_accepted, collector, turn + 1))
        await writer.close()
        await eventually(came(collector, 300))
    assert sorted(numbers(data(collector))) == list(range(1, 301))
    assert collector.torn == []


async def test_which_log_it_is(tmp_path: Path) -> None:
    """MSGID tells; the application's log leaves its daily rotation to files."""
    with DatagramCollector(tmp_path / "log") as collector:
        sessions = LogWriter(collector.url, str, 0.001, what="session log")
        await sessions.open()
        sessions.put("opened")
        await sessions.close()
        app = AppLog(collector.url, "info")
        await app.open()
        logging.getLogger("test.syslog").warning("Achtung, %s!", "Käse", extra={"count": 2})
        await app.close()
        await eventually(came(collector, 3))
    first, second, third = collector.messages
    assert (first.id, first.text) == ("session", "opened")
    assert (second.id, third.id) == ("application", "application")
    assert second.text.endswith("Achtung, Käse!")
    assert third.text == '    {"count": 2}'
