"""A syslog collector that fails: every line arrives all the same, or is counted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from h2log.logfile.syslog_links import Stream, connect
from h2log.logfile.syslog_url import SyslogUrl
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
from tests.logfile.numbered import line, missing, numbers, put_many, written
from tests.support import eventually, free_port


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again sooner than in earnest."""
    monkeypatch.setattr("h2log.logfile.writer._LAST_RETRY", 0.1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_collector_that_goes_and_comes_back(
    kind: str, tmp_path: Path, certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Serving goes on, lines wait for it and come in order, each once; it is told once."""
    with collector_of(kind, tmp_path, certs) as collector:
        writer = LogWriter(with_options(collector, certs), line, 0.001)
        await writer.open()
        for turn in (1, 2):
            await put_many(writer, 20)
            await written(writer)
            await eventually(came(collector, turn * 40 - 20))
            await asyncio.to_thread(collector.stop)
            await put_many(writer, 20)
            await eventually(lambda: "refused" in writer.health().failing)
            collector.start()
            await eventually(lambda: not writer.health().failing)
            await written(writer)
            await eventually(came(collector, turn * 40))
        await writer.close()
    assert numbers(data(collector)) == list(range(1, 81))
    assert [message.sequence for message in collector.messages] == list(range(1, 81))
    assert (writer.written, writer.dropped) == (80, 0)
    assert writer.health().reopened >= 2
    told = [record.getMessage() for record in caplog.records if record.name == "h2log.log"]
    assert sum("cannot write to syslog" in text for text in told) == 2
    assert sum("writing to syslog" in text for text in told) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_too_much_is_noted(kind: str, tmp_path: Path, certs: Certificates) -> None:
    """A collector that is down for long: what does not fit is counted, and told in its place."""
    with collector_of(kind, tmp_path, certs) as collector:
        writer = LogWriter(with_options(collector, certs), line, 0.001, 8192)
        await writer.open()
        await asyncio.to_thread(collector.stop)
        await put_many(writer, 1)
        await eventually(lambda: writer.health().failing)
        await put_many(writer, 3000)
        await writer.flush()
        assert writer.dropped > 0
        collector.start()
        await eventually(lambda: not writer.health().failing)
        await put_many(writer, 10)
        await written(writer)
        await eventually(lambda: len(collector.received) > writer.written)
        await writer.close()
    found = data(collector)
    assert sorted(numbers(found) + missing(found)) == list(range(1, 3012))
    assert len(missing(found)) == writer.dropped
    assert b'reason="Connection refused"' in found


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_connection_that_was_closed_while_nothing_came(
    kind: str, tmp_path: Path, certs: Certificates
) -> None:
    """Is noticed before the next line is sent: it is not lost, and that is no failure."""
    with collector_of(kind, tmp_path, certs) as collector:
        assert isinstance(collector, StreamCollector)
        writer = LogWriter(with_options(collector, certs), line, 0.001)
        await writer.open()
        for turn in range(1, 6):
            await put_many(writer, 1)
            await eventually(came(collector, turn))
            collector.close_connections()
            await eventually(lambda: not collector._connections)
        await writer.close()
        assert numbers(data(collector)) == [1, 2, 3, 4, 5]
        assert (writer.health().failures, writer.health().reopened) == (0, 4)


def test_what_was_sent_into_a_closed_connection() -> None:
    """Is given back whole: the other side's system has refused it."""
    with StreamCollector() as collector:
        link = connect(SyslogUrl.parse(collector.url))
        assert isinstance(link, Stream)
        assert link.send([b"first"]) == 1
        while not collector.received:
            time.sleep(0.001)
        collector.stop()
        # The end of the connection is known to the system, and nobody has looked.
        assert link.send([b"second", b"third"]) == 2
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                link.send([])
                link.check()
            except OSError:
                break
        assert link.close(1.0) == [b"second", b"third"]
        assert collector.received == [b"first"]


async def test_the_last_line_needs_no_other_to_come_again() -> None:
    """A datagram that was refused is sent again though nothing more is logged."""
    with DatagramCollector() as collector:
        writer = LogWriter(collector.url, line, 0.001)
        await writer.open()
        await put_many(writer, 1)
        await eventually(lambda: collector.received)
        await asyncio.to_thread(collector.stop)
        await put_many(writer, 1)
        await eventually(lambda: "refused" in writer.health().failing)
        assert writer.health().queued_lines == 0
        collector.start()
        await eventually(came(collector, 2))
        await writer.close()
    assert numbers(data(collector)) == [1, 2]


async def test_nobody_at_the_port_at_the_end() -> None:
    """What was refused and could not be sent again is counted as dropped."""
    writer = LogWriter(f"syslog://127.0.0.1:{free_port()}", line, 0.001)
    await writer.open()
    await put_many(writer, 10)
    await writer.close()
    assert (writer.written, writer.dropped) == (0, 10)
