"""A syslog collector that does not read, and what is on its way when it is killed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from h2log.logfile.writer import LogWriter
from h2log.server.certificates import Certificates
from tests.logfile.collector import (
    StreamCollector,
    came,
    collector_of,
    data,
    overfill,
    server_side,
    with_options,
)
from tests.logfile.numbered import TEXT, line, numbers, put_many, written
from tests.support import eventually


async def open_hurried(writer: LogWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open a log that finds out, and tries again, sooner than in earnest."""
    patched = monkeypatch.setattr
    if not writer.path.startswith("syslog+tls:"):  # a handshake takes its time
        patched("h2log.logfile.syslog_links.PATIENCE", 0.2)
    await writer.open()
    patched("h2log.logfile.syslog_links.PATIENCE", 0.2)
    patched("h2log.logfile.writer._LAST_RETRY", 0.1)


@pytest.mark.parametrize("kind", ["unix", "unix stream", "tcp", "tls"])
async def test_a_collector_that_does_not_read(
    kind: str, tmp_path: Path, certs: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines wait in its buffers and ours; when it reads again, each comes once, in order."""
    with collector_of(kind, tmp_path, certs, 4096) as collector:
        writer = LogWriter(with_options(collector, certs), line, 0.001)
        await open_hurried(writer, monkeypatch)
        collector.pause()
        await overfill(writer)
        assert writer.health().failing == "the collector does not read"
        collector.resume()
        await eventually(lambda: not writer.health().failing)
        await written(writer)
        await eventually(came(collector, writer.sequence), 20)
        await writer.close()
    assert numbers(data(collector)) == list(range(1, writer.sequence + 1))
    assert (writer.written, writer.dropped) == (writer.sequence, 0)
    assert writer.health().reopened == 0


async def test_a_collector_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its system had not acknowledged is sent again, whole, and nothing else is.

    So each line comes once, though the connection broke in the middle of one, with tens of
    kilobytes on their way.
    """
    with StreamCollector(buffer=4096) as collector:
        writer = LogWriter(collector.url, line, 0.001)
        await open_hurried(writer, monkeypatch)
        for _ in range(2):
            before = len(collector.received)
            await put_many(writer, 10)
            await eventually(came(collector, before + 10, at_least=True))
            collector.pause()
            await overfill(writer)
            await asyncio.to_thread(collector.kill)
            assert len(collector.received) < writer.written - 200, "much was on its way"
            collector.start()
            await eventually(lambda: not writer.health().failing)
            await written(writer)
            await eventually(came(collector, writer.sequence), 20)
        await writer.close()
    assert numbers(data(collector)) == list(range(1, writer.sequence + 1))
    assert (writer.written, writer.dropped) == (writer.sequence, 0)


async def test_a_collector_that_is_killed_over_tls(
    certs: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line comes at least once: its system has acknowledged octets that are no lines yet."""
    with StreamCollector(context=server_side(certs), buffer=4096) as collector:
        writer = LogWriter(with_options(collector, certs), line, 0.001)
        await open_hurried(writer, monkeypatch)
        await put_many(writer, 10)
        await eventually(came(collector, 10))
        collector.pause()
        await overfill(writer)
        collector.resume()
        await eventually(lambda: len(collector.received) > 1000)
        await asyncio.to_thread(collector.stop)
        collector.start()
        await eventually(lambda: not writer.health().failing)
        await written(writer)
        last = f" {writer.sequence} {TEXT}".encode()
        await eventually(lambda: collector.received[-1].endswith(last), 20)
        await writer.close()
    found = numbers(data(collector))
    assert set(found) <= set(range(1, writer.sequence + 1))
    assert (writer.written, writer.dropped) == (writer.sequence, 0)


@pytest.mark.parametrize("kind", ["unix", "unix stream", "tcp", "tls"])
async def test_the_end_does_not_wait_for_ever(
    kind: str, tmp_path: Path, certs: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that reads nothing: no thread is stuck, and what has no taker is dropped."""
    monkeypatch.setattr("h2log.logfile.syslog._LAST_WORDS", 0.2)
    before = set(threading.enumerate())
    with collector_of(kind, tmp_path, certs, 4096) as collector:
        writer = LogWriter(with_options(collector, certs), line, 0.001)
        await open_hurried(writer, monkeypatch)
        collector.pause()
        await overfill(writer)
        await writer.close()
        assert not writer.stuck
        assert writer.written + writer.dropped == writer.sequence
        assert writer.dropped > 0
        await eventually(
            lambda: not [t for t in set(threading.enumerate()) - before if "h2log" in t.name]
        )
