"""Requests of HTTP/1.1 out of bytes: what h11 decides, and a short way around it for plain ones.

h11 keeps the grammar and the rules of RFC 9112, and takes most of the time that a small request
costs. Clients send the same field lines again and again; so what h11 has said of a line is
remembered, and of a whole field section what came of its lines:

    a whole head has come, its request line is of the plainest form, each line of its field section
    is one that h11 takes for a field, and none changes how the request is read   -> the short way
    anything else, be it in pieces, chunked, rare or wrong                        -> through h11

A line is a field by itself: the name up to the first colon, the value without the blanks around it
(RFC 9112 section 5.1). A line that begins with a blank, or has a lone LF, is none for h11. What
only the whole section tells is left to h11 as soon as there is something to tell; see
`FieldFacts.plain`.
"""

from __future__ import annotations

import re
from typing import Final

import h11

from h2log.config import Limits
from h2log.server.http1_head import FieldFacts, Http1Head, fits, head_of

__all__ = ["MAX_LINE", "RequestReader"]

MAX_LINE: Final = 8192
"""Bytes of a request line that are kept for the log while its header is not complete."""

# A token, a path with its query, and the version: RFC 9112 section 3.
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (/[!-~]*) HTTP/1\.1\r\n").match

_MOST_LINES: Final = 4096
_MOST_LINE: Final = 512
"""Field lines that are remembered, and the bytes of the longest."""
_lines: dict[bytes, tuple[bytes, bytes]] = {}

_MOST_SECTIONS: Final = 512
_MOST_SECTION: Final = 2048
"""Field sections that are remembered, and the bytes of the longest; browsers send several hundred.
With their lines, and what was made of both, a few megabytes for the process."""
_sections: dict[str, dict[bytes, FieldFacts]] = {"http": {}, "https": {}}


def _field(line: bytes) -> tuple[bytes, bytes] | None:
    """Return the name, in lower case, and the value of a field line, if h11 takes it for one."""
    name, colon, value = line.partition(b":")
    if not colon:
        return None
    try:
        # The shortest way to ask: h11 checks the fields of a trailer section as those of a head.
        [field] = h11.EndOfMessage(headers=[(name, value.strip(b" \t"))]).headers
    except h11.LocalProtocolError:
        return None
    if len(line) <= _MOST_LINE:
        if len(_lines) >= _MOST_LINES:
            _lines.clear()
        _lines[line] = field
    return field


def _section(text: bytes, most: int) -> FieldFacts | None:
    """Return what a field section says, if each of its lines is a field, and they are not many."""
    if text.count(b"\r\n") >= most:
        return None
    fields = []
    for line in text.split(b"\r\n"):
        field = _lines.get(line) or _field(line)
        if field is None:
            return None
        fields.append(field)
    return FieldFacts(tuple(fields))


class RequestReader:
    """Reads the requests of one connection, in order: a head, its content, the next head."""

    __slots__ = (
        "_at",
        "_data",
        "_first",
        "_h11",
        "_last",
        "_last_bytes",
        "_latest",
        "_left",
        "_limits",
        "_scheme",
        "_sections",
        "_short",
        "begun",
    )

    def __init__(self, limits: Limits, scheme: str, *, short: bool = True) -> None:
        self._limits = limits
        self._scheme = scheme
        self._sections = _sections[scheme]
        self._short = short  # plain requests go around h11
        self._data = b""  # what has come; up to `_at` it was used
        self._at = 0
        self._left = 0  # bytes of content that are to come
        self._h11: h11.Connection | None = None  # what has come is its, for now
        self._first = b""  # of what h11 has, while it has no head
        self._latest = b""  # the latest field section that was not remembered
        self._last_bytes = b""  # the latest head that came the short way
        self._last: Http1Head | None = None
        self.begun = False
        """Some of a head has come, and not all of it."""

    def receive(self, data: bytes) -> None:
        """Take what has come."""
        if self._h11 is not None:
            self._h11.receive_data(data)
            if self.begun and len(self._first) < MAX_LINE:
                self._first += data[: MAX_LINE - len(self._first)]
        elif self._at >= len(self._data):
            self._data, self._at = data, 0
        else:
            self._data, self._at = self._data[self._at :] + data, 0

    @property
    def ahead(self) -> int:
        """Bytes that have come and were not used."""
        if self._h11 is not None:
            return len(self._h11.trailing_data[0])
        return len(self._data) - self._at

    @property
    def first_line(self) -> bytes:
        """The beginning of what was not used, where the next head is to be."""
        if self._h11 is not None:
            return self._first
        return self._data[self._at : self._at + MAX_LINE]

    def take(self) -> bytes:
        """Return what was not used, and forget it: it is no HTTP/1.1."""
        data = self._data[self._at :]
        self._data, self._at = b"", 0
        return data

    def _use(self, at: int) -> None:
        """Everything up to `at` is used; an idle connection keeps nothing of it."""
        if at == len(self._data):
            self._data, self._at = b"", 0
        else:
            self._at = at

    def head(self) -> Http1Head | None:
        """Return the next head, None while it is not complete. Raises h11.RemoteProtocolError.

        Then `content` is to be called until it has returned all of it.
        """
        if self._h11 is None:
            data, at = self._data, self._at
            last = self._last_bytes
            if last and data.startswith(last, at):
                self._use(at + len(last))
                assert self._last is not None
                self._left = self._last.facts.length
                return self._last
            while at < len(data) and data[at] in b"\r\n":  # RFC 9112 section 2.2
                at += 1
            self._at = at
            if at == len(data):
                self._data, self._at = b"", 0
                self.begun = False
                return None
            head = self._plain(data, at)
            if head is not None:
                return head
            self.begun = True
            self._h11 = h11.Connection(
                h11.SERVER, max_incomplete_event_size=self._limits.max_header_bytes
            )
            self._h11.receive_data(data[at:] if at else data)
            self._first = data[at : at + MAX_LINE]
            self._data, self._at = b"", 0
        event = self._h11.next_event()
        if event is h11.NEED_DATA:
            return None
        assert isinstance(event, h11.Request)
        self.begun = False
        head = head_of(event, self._scheme)
        head.expects = self._h11.they_are_waiting_for_100_continue
        self._left = head.facts.length
        if self._left >= 0:
            self._leave()
        return head

    def _plain(self, data: bytes, at: int) -> Http1Head | None:
        """Return the head that begins at `at`, if it is whole and plain."""
        line = _REQUEST_LINE(data, at)
        if line is None or not self._short:
            return None
        start = line.end()
        end = data.find(b"\r\n\r\n", start)
        limits = self._limits
        if end < 0 or end + 4 - at > limits.max_header_bytes:
            return None
        facts = self._facts(data[start:end])
        if facts is None or not facts.plain or not fits(facts, limits):
            return None
        method, target = line.groups()
        self._use(end + 4)
        self._left = facts.length
        head = Http1Head(
            method.decode("ascii"),
            target.decode("ascii"),
            self._scheme,
            facts.authority,
            facts,
            len(target) + facts.size,
            sound=True,
        )
        self._last_bytes = data[at : end + 4] if end - at <= _MOST_SECTION else b""
        self._last = head
        return head

    def _facts(self, text: bytes) -> FieldFacts | None:
        """Return what a field section says, if each of its lines is a field."""
        facts = self._sections.get(text)
        if facts is None:
            facts = _section(text, self._limits.max_header_fields)
            # Remembered when it comes twice in a row: most that differ come once.
            if text != self._latest:
                self._latest = text if len(text) <= _MOST_SECTION else b""
            elif facts is not None:
                if len(self._sections) >= _MOST_SECTIONS:
                    self._sections.clear()
                self._sections[text] = facts
        return facts

    def content(self) -> bytes | None:
        """Return the next piece of the content, b"" at its end, None while none has come.

        Raises h11.RemoteProtocolError.
        """
        if self._h11 is None:
            if not self._left:
                return b""
            piece = self._data[self._at : self._at + self._left]
            self._use(self._at + len(piece))
            self._left -= len(piece)
            return piece or None
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.EndOfMessage):
                self._leave()
                return b""
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)

    def _leave(self) -> None:
        """Take back what h11 did not use: it has read what only it can read."""
        assert self._h11 is not None
        self._data, self._at = self._h11.trailing_data[0], 0
        self._h11 = None
        self._left = 0 if self._left < 0 else self._left
