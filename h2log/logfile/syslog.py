"""A log that goes to a syslog collector, as RFC 5424 has it, one message a line.

    <134>1 2026-11-20T13:31:59.123456Z web1 h2log 4711 access [meta sequenceId="17"] 2026-11-20T…

MSGID tells the log: `access`, `session` or `application`. The line is MSG, as it is: encoded as
UTF-8, with a byte order mark if it is not ASCII (section 6.4), and with its tabs. TIMESTAMP is
when the message was made: lines that had to wait for the collector have their own times.
`sequenceId` (section 7.3.1) is 1 for the first message of a process and grows by one: a receiver
sees by it what a network has lost, and what came twice.

rsyslog keeps tabs with `parser.escapeControlCharacterTab="off"`, else it shows them as `#011`; at
its Unix sockets it knows RFC 5424 with `useSpecialParser="off" parseHostname="on"`. It cuts what
is longer than its `maxMessageSize`, 8 KiB.

While there is no collector, `write` raises OSError: lines wait with the writer, are counted and
noted when there are too many, and come in their order when there is one again. Over TCP, TLS and
Unix streams each comes at least once: what the collector's system had not acknowledged when a
connection broke is sent again, first. See `syslog_links` for what that means, and for datagrams;
see `syslog_url` for the URLs.

The collector must be there at the start, as a file must be: an address that cannot be connected to
is a mistake that is told at once. Of a UDP port it is not known whether anybody listens.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
import socket
from datetime import UTC, datetime
from typing import Final

from h2log.clock import monotonic, wall
from h2log.logfile.syslog_links import PATIENCE, Link, connect, tls_context
from h2log.logfile.syslog_url import SyslogUrl

__all__ = ["SyslogTarget"]

_logger = logging.getLogger("h2log.log")

_FOREVER: Final = float("inf")
_NOW: Final = 0.0
_PIECE: Final = 64 * 1024
"""Bytes of lines sent at a time; a longer line goes alone."""
_LOOK: Final = 1.0
"""Seconds until it is looked at whether what was sent has arrived."""
_BATCH: Final = 256
"""Messages that are sent again at a time."""
_LAST_WORDS: Final = 4.0
"""Seconds that `close` may take."""
_LAST_SEQUENCE: Final = 2**31 - 1
"""RFC 5424 section 7.3.1: then it is 1 again."""
_NIL: Final = "-"


class SyslogTarget:
    """Lines to the collector at `url`; `name` is the log's, such as `access log`.

    `header` is sent once, as the first message. Raises UsageError for a url that is none.
    """

    def __init__(self, url: str, *, header: bytes = b"", name: str = "access log") -> None:
        self.path = url
        self.due = _FOREVER
        self.rotations = 0
        self.reopened = 0
        """Connections after the first."""
        self.failures = 0
        self.cut = 0
        self._url = SyslogUrl.parse(url)
        self._context = tls_context(self._url)
        self._header = header
        self._message_id = _printable(re.split(r"[\s']", name)[0], 32)
        self._host = self._process = _NIL
        self._sequence = 1
        self._link: Link | None = None
        self._turn = 0
        self._waiting: list[bytes] = []  # messages of a broken connection, to be sent again
        self._headers: frozenset[bytes] = frozenset()

    @property
    def current(self) -> str:
        """The url."""
        return self.path

    @property
    def descriptor(self) -> int:
        """Always -1: `write` waits itself."""
        return -1

    @property
    def lost(self) -> bytes:
        """The messages that were taken and have not arrived, each with a newline."""
        return b"".join(b"%s\n" % one for one in self._waiting if one not in self._headers)

    def open(self) -> None:
        """Connect. Raises OSError."""
        self._host = _printable(socket.gethostname(), 255)
        self._process = str(os.getpid())
        self._link = connect(self._url, self._context)
        self._waiting = self._messages(self._header.split(b"\n")[:-1])
        self._headers = frozenset(self._waiting)
        self._sequence = self._after(len(self._waiting))

    def write(self, data: bytes, offset: int) -> int:
        """Send some of the whole lines of `data` from `offset` on; return how many bytes of it.

        Raises OSError for nothing.
        """
        link = self._linked()
        self._deliver(link)
        end = data.rfind(b"\n", offset, offset + _PIECE) + 1 or data.find(b"\n", offset) + 1
        lines = data[offset : end - 1].split(b"\n")
        try:
            taken = link.send(self._messages(lines))
        finally:
            self._sent(link)
        self._sequence = self._after(taken)
        return sum(map(len, lines[:taken])) + taken

    def tend(self, *, reopen: bool = False) -> None:
        """Look whether what was sent has arrived; with `reopen`, connect anew. Raises OSError."""
        if reopen and self._link is not None:
            self._waiting[:0] = self._link.close(PATIENCE)
            self._link = None
        elif wall() < self.due and not reopen:
            return
        if self._link is not None:
            try:
                self._link.check()
            except OSError:
                self._drop(self._link)
        if reopen or self._waiting:
            self._deliver(self._linked())
        self._set_due()

    def sync(self) -> None:
        """Do nothing: what becomes of a message is the collector's."""

    def close(self) -> None:
        """Send what is left, see it arrive, and close; what could not is `lost`."""
        deadline = monotonic() + _LAST_WORDS
        for _ in range(2):  # again if the collector was closing, too
            try:
                if self._waiting:
                    self._deliver(self._linked())
            except OSError:
                deadline = 0.0
            if self._link is not None:
                self._waiting[:0] = self._link.close(max(deadline - monotonic(), 0.0))
                self._link = None
            if not self._waiting or not deadline:
                break
        self.due = _FOREVER

    def _linked(self) -> Link:
        """Return an open connection: a new one where the last has broken. Raises OSError."""
        if self._link is not None:
            try:
                self._link.check()
            except OSError:
                self._drop(self._link)
        if self._link is None:
            try:
                self._link = connect(self._url, self._context, self._turn)
            except OSError:
                self._turn += 1
                raise
            self.reopened += 1
        return self._link

    def _deliver(self, link: Link) -> None:
        """Send what has to be sent again, and see it arrive. Raises OSError.

        So no more is ever held here than was on its way on one connection.
        """
        if not self._waiting:
            return
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            taken = 0
            try:
                taken = link.send(batch)
            finally:
                self._waiting[:0] = batch[taken:]
                self._sent(link)
            if link.broken is not None:
                raise link.broken
        try:
            link.settle(PATIENCE)
        finally:
            self._sent(link)

    def _sent(self, link: Link) -> None:
        """See what has become of a link after something was sent."""
        if link.cut:
            self._tell_cut(link.cut)
            link.cut = 0
        if link.broken is not None:
            self._drop(link)
        else:
            self._set_due()

    def _drop(self, link: Link) -> None:
        """Close a broken connection; what it had taken and did not deliver is to be sent again."""
        self._waiting[:0] = link.close(0.0)
        self._link = None
        self._turn += 1
        self._set_due()

    def _set_due(self) -> None:
        if self._waiting:
            self.due = _NOW
        elif self._link is None or self._link.settled:
            self.due = _FOREVER
        else:
            self.due = wall() + _LOOK

    def _tell_cut(self, count: int) -> None:
        if not self.cut:
            _logger.warning(
                "a line for %s is longer than its datagrams can be and is cut; "
                "syslog+tcp: takes lines of any length",
                self.path,
            )
        self.cut += count

    # Messages

    def _messages(self, lines: list[bytes]) -> list[bytes]:
        now = datetime.fromtimestamp(wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        head = (
            f"<{self._url.priority}>1 {now} {self._host} {self._url.app} {self._process} "
            f'{self._message_id} [meta sequenceId="'
        ).encode("ascii")
        messages: list[bytes] = []
        for count, line in enumerate(lines):
            mark = b"" if line.isascii() else codecs.BOM_UTF8
            messages.append(b'%s%d"] %s%s' % (head, self._after(count), mark, line))
        return messages

    def _after(self, count: int) -> int:
        """Return the number of the message so many after the next one."""
        return (self._sequence + count - 1) % _LAST_SEQUENCE + 1


def _printable(text: str, length: int) -> str:
    """Return what of a text may stand in a header, PRINTUSASCII, or the NILVALUE."""
    return "".join(char for char in text if "!" <= char <= "~")[:length] or _NIL
