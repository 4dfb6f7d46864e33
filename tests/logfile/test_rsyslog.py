"""A real syslog daemon, rsyslog, takes what h2log sends: every line, and every part of its header.

It runs as a process of its own with a configuration of its own; the system's is not touched.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from h2log.access.formats import compile as compile_format
from h2log.logfile.notes import as_line
from h2log.logfile.writer import LogWriter
from h2log.server.certificates import Certificates
from tests.access.records import record
from tests.logfile.numbered import line, numbers, put_many, written
from tests.support import eventually, free_port, poll

# What it received as it understood it: an object a line.
RULES = """
global(workDirectory="{folder}" maxMessageSize="128k"
       parser.escapeControlCharactersOnReceive="on" parser.escapeControlCharacterTab="off"
       defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{cert}"
       defaultNetstreamDriverKeyFile="{key}")
template(name="fields" type="list" option.jsonf="on") {{
  property(outname="pri" name="pri" format="jsonf")
  property(outname="stamp" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="process" name="procid" format="jsonf")
  property(outname="id" name="msgid" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="version" name="protocol-version" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}}
module(load="imuxsock" sysSock.use="off")
module(load="imudp")
module(load="imptcp")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imuxsock" socket="{folder}/log" useSpecialParser="off" parseHostname="on"
      rateLimit.interval="0" ruleset="all")
input(type="imudp" address="127.0.0.1" port="{udp}" ruleset="all")
input(type="imptcp" address="127.0.0.1" port="{tcp}" listenPortFileName="{folder}/tcp.port"
      ruleset="all")
input(type="imtcp" address="127.0.0.1" port="{tls}" listenPortFileName="{folder}/tls.port"
      ruleset="all")
ruleset(name="all") {{
  action(type="omfile" file="{folder}/received" template="fields")
}}
"""


class Daemon:
    """An rsyslogd with a folder of its own."""

    def __init__(self, folder: Path, certs: Certificates) -> None:
        program = shutil.which("rsyslogd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            pytest.skip("rsyslogd is not installed")
        self._program = program
        self._folder = folder
        self._certs = certs
        self._udp = free_port()
        self._tcp = self._tls = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it: it listens when the block begins; the next time at the same ports."""
        certs = self._certs
        rules = RULES.format(
            folder=self._folder,
            udp=self._udp,
            tcp=self._tcp,
            tls=self._tls,
            ca=certs.ca,
            cert=certs.cert,
            key=certs.key,
        )
        (self._folder / "rules").write_text(rules)
        process = subprocess.Popen(
            [self._program, "-n", "-f", self._folder / "rules", "-i", self._folder / "pid"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            poll(lambda: process.poll() is not None or self._listens())
            if process.poll() is not None:
                pytest.fail(f"rsyslogd has ended: {process.communicate()[0].decode()}")
            yield
        finally:
            process.terminate()
            process.communicate(timeout=10)

    def _listens(self) -> bool:
        """Return whether all its ports are open; the first time it has chosen them."""
        for name in ("tcp", "tls"):
            file = self._folder / f"{name}.port"
            if not (file.exists() and file.read_text()):
                return False
            setattr(self, f"_{name}", int(file.read_text()))
        tcp, udp = (Path(f"/proc/net/{name}").read_text() for name in ("tcp", "udp"))
        listening = [f":{port:04X} 00000000:0000 0A" for port in (self._tcp, self._tls)]
        return f":{self._udp:04X} " in udp and all(text in tcp for text in listening)

    def url(self, kind: str, **options: str) -> str:
        """Return where it takes lines."""
        bases = {
            "unix": f"syslog://{self._folder}/log",
            "udp": f"syslog://127.0.0.1:{self._udp}",
            "tcp": f"syslog+tcp://localhost:{self._tcp}",
            "tls": f"syslog+tls://localhost:{self._tls}",
        }
        if kind == "tls":
            options["ca"] = str(self._certs.ca)
        return f"{bases[kind]}?{'&'.join(f'{n}={v}' for n, v in options.items())}".rstrip("?")

    @property
    def received(self) -> list[dict[str, Any]]:
        """What it has written so far."""
        path = self._folder / "received"
        text = path.read_text("utf-8") if path.exists() else ""
        return [json.loads(one) for one in text.splitlines(keepends=True) if one.endswith("\n")]

    def has(self, count: int) -> bool:
        """Return whether it has written so many."""
        return len(self.received) >= count

    @property
    def data(self) -> bytes:
        """The lines that it took, as a file of h2log's would have them."""
        return "".join(f"{one['text']}\n" for one in self.received).encode()


@pytest.mark.parametrize("kind", ["unix", "udp", "tcp", "tls"])
async def test_every_line_and_its_header(kind: str, tmp_path: Path, certs: Certificates) -> None:
    """In order, as they were sent."""
    there = Daemon(tmp_path, certs)
    with there.running():
        url = there.url(kind, facility="local5", severity="warning", app="shop")
        writer = LogWriter(url, line, 0.001)
        await writer.open()
        for turn in range(1, 11):  # its buffer for datagrams is small
            await put_many(writer, 50)
            await eventually(partial(there.has, turn * 50))
        await writer.close()
        received = there.received
    assert numbers(there.data) == list(range(1, 501))
    assert writer.health().failures == 0
    first, last = received[0], received[-1]
    assert {name: first[name] for name in ("pri", "host", "app", "process", "id", "version")} == {
        "pri": str(21 * 8 + 4),
        "host": socket.gethostname(),
        "app": "shop",
        "process": str(os.getpid()),
        "id": "access",
        "version": "1",
    }
    assert first["data"] == '[meta sequenceId="1"]'
    assert last["data"] == '[meta sequenceId="500"]'
    assert first["stamp"].endswith(("Z", "+00:00"))


async def test_the_lines_of_formats(tmp_path: Path, certs: Certificates) -> None:
    """Tabs, quotes, objects, and text that is not ASCII come through as they are."""
    made = record()
    formats: list[tuple[Callable[[Any], str | None], Any]] = [
        (compile_format(name), made) for name in ("h2log", "h2log-full", "combined", "json")
    ]
    formats.append((str, "Grüße aus 東京 🚀"))
    wanted: list[str] = []
    there = Daemon(tmp_path, certs)
    with there.running():
        for line_format, item in formats:
            writer = LogWriter(there.url("tcp"), line_format, 0.001)
            await writer.open()
            writer.put(item)
            await writer.close()
            wanted.extend(as_line(getattr(line_format, "header", None)).decode().splitlines())
            wanted.append((line_format(item) or "").rstrip("\n"))
            await eventually(lambda: len(there.received) == len(wanted))
        # The mark says that it is UTF-8; rsyslog leaves it where it is.
        texts = [one["text"].removeprefix("\ufeff") for one in there.received]
    assert texts == wanted


@pytest.mark.parametrize("kind", ["unix", "udp", "tcp", "tls"])
async def test_it_is_restarted(kind: str, tmp_path: Path, certs: Certificates) -> None:
    """Lines wait until it is back, and each comes once."""
    there = Daemon(tmp_path, certs)
    with there.running():
        writer = LogWriter(there.url(kind), line, 0.001)
        await writer.open()
        await put_many(writer, 10)
        await eventually(lambda: len(there.received) == 10)
    await put_many(writer, 40)
    await eventually(lambda: writer.health().failing)
    with there.running():
        await eventually(lambda: not writer.health().failing)
        await put_many(writer, 50)
        await written(writer)
        await eventually(lambda: len(there.received) >= 100)
        await writer.close()
    assert numbers(there.data) == list(range(1, 101))
    assert (writer.written, writer.dropped) == (100, 0)
