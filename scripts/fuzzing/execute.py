"""Runs one case against the engine and checks everything that must hold, after every step."""

from __future__ import annotations

import re
from time import thread_time_ns
from typing import Final, NamedTuple

import case as cases
from application import LARGEST_SECTION, Application
from case import Case
from client import Broken, Client
from h2.errors import ErrorCodes

from h2log.errors import SessionError
from h2log.http2 import budget
from h2log.http2.budget import BUDGETS, Budget
from h2log.http2.connection import Connection
from h2log.http2.events import Cause
from h2log.http2.head import RequestHead, parse_request
from h2log.http2.hpack import Decoder
from h2log.http2.settings import EngineLimits

__all__ = ["GREETING", "LIMITS", "WEIGHT", "Result", "Run", "begin", "execute"]

_WIDE: Final = {name: Budget(1_000_000, 1000.0) for name in BUDGETS}
_NARROW: Final = {name: Budget(3, 1.0) for name in BUDGETS}

LIMITS: Final = (
    EngineLimits(),
    EngineLimits(budgets=_WIDE),
    EngineLimits(max_streams=3, max_header_bytes=2048, stream_window=65_535, budgets=_WIDE),
    EngineLimits(stream_window=1024, connection_window=65_535, budgets=_WIDE),
    EngineLimits(extended_connect=True, max_header_fields=5, budgets=_WIDE),
    EngineLimits(budgets=_NARROW, max_streams=5),
    EngineLimits(max_streams=1, stall_timeout=5.0, min_rate=10_000, budgets=_WIDE),
    EngineLimits(stream_window=2**31 - 1, connection_window=2**31 - 1, budgets=_WIDE),
)
"""By the low three bits of a case's profile."""

GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex(
    "000000040000000000 000000040100000000"
)
"""A preface, SETTINGS, and the acknowledgement of the server's."""

WEIGHT: Final = 200
"""Bytes that a call, and a request, count as: what they cost whatever their size."""

_SLACK: Final = 2 * 16_384 + 70_000
"""Bytes that one frame may add to the output over its limits: a whole prepared response."""

_VARIABLE = re.compile(r"b?'[^']*'|\d+").sub


class Result(NamedTuple):
    """What there is to learn from a case that broke nothing."""

    outcomes: frozenset[str]
    requests: int
    sent: int
    """Bytes in."""
    nanoseconds: float
    """The worst cost of a byte, in or out; a call and a request count as `WEIGHT` more."""
    counters: dict[str, float]
    """How near each counter came to its bound, 1.0 being there."""


class Run:
    """One connection, its client, and the layer above."""

    __slots__ = ("app", "client", "conn", "costs", "limits", "near", "now", "racing", "reference")

    def __init__(self, case: Case) -> None:
        self.now = 1000.0
        self.limits = LIMITS[case.profile & 7]
        self.app = Application(case.script)
        self.conn = self.app.conn = Connection(self.app, self.limits, self.now)
        self.client = Client()
        if self.limits.connection_window < 65_535:
            self.client.room = self.limits.connection_window
        self.racing = False
        self.near: dict[str, float] = {}
        self.costs = 0.0
        self.reference: Decoder | None = None
        if case.profile & cases.REFERENCE:
            self.reference = Decoder(self.limits.max_header_bytes, self.limits.max_header_fields)

    def receive(self, data: bytes) -> None:
        """Let the client send `data`."""
        closing = self.conn.closing
        if not closing:
            self.client.sent(data)
        weight = len(self.conn._tail) + sum(map(len, self.conn._block or ()))  # read only now
        weight -= len(self.app.reported) * WEIGHT + self.conn.out_size
        began = thread_time_ns()
        self.conn.receive(data, self.now)
        spent = thread_time_ns() - began
        weight += len(self.app.reported) * WEIGHT + self.conn.out_size
        for piece in self.app.written:
            weight += len(piece)
        weight += len(data) + WEIGHT
        if spent > self.costs * weight:
            self.costs = spent / weight
        self.flush(True)
        if self.client.doomed and not self.conn.closing:
            raise Broken(f"the connection goes on after an error: {self.client.doomed}")
        self._compare_opened()

    def flush(self, racing: bool) -> None:
        """Hand the output over, as a server does, and check it."""
        conn = self.conn
        self.app.go_on()
        written = self.app.written
        while conn.out_size and not conn.blocked:
            written.append(conn.take())
            if conn.pending:
                conn.pump()
        conn.settle()
        if conn.closing and conn.out_size:
            written.append(conn.take())
        if written:
            self.client.got(b"".join(written), racing or self.racing)
            written.clear()
        self.racing = conn.blocked and conn.out_size > 0
        if conn.error is not None and not conn.out_size:
            client = self.client
            if client.last_kind != 7 or client.goaway is None:
                raise Broken("a connection error without GOAWAY at the end")
            if client.goaway[1] != conn.error.code:
                raise Broken(f"GOAWAY says {client.goaway[1]}, not {conn.error.code}")

    def step(self, kind: int, number: int, data: bytes) -> None:
        """Take one step."""
        conn, app = self.conn, self.app
        if kind == cases.RECEIVE:
            self.receive(data)
            return
        if kind == cases.TICK:
            self.now += cases.SECONDS[number % len(cases.SECONDS)]
            conn.tick(self.now)
        elif kind == cases.BLOCK:
            conn.blocked = True
        elif kind == cases.UNBLOCK:
            conn.blocked = False
            conn.now = self.now
            conn.pump()
        elif kind == cases.DRAIN:
            conn.drain(self.now)
        elif kind == cases.SHUT or kind == cases.STOP:
            if kind == cases.SHUT:
                for stream in list(conn.streams.values()):
                    conn.reset(stream, ErrorCodes.CANCEL)
                    app.on_reset(stream, Cause.CONNECTION, ErrorCodes.CANCEL)
            conn.stop()
        elif kind == cases.LOST:
            if not conn.closing:
                conn.end()
        elif kind != cases.FLUSH and app.streams:
            stream = app.streams[-1 - number % min(len(app.streams), 8)]
            if kind == cases.ANSWER:
                app.answer(stream, 300 * number)
            elif kind == cases.RESET:
                app.reset(stream, ErrorCodes.CANCEL)
            elif kind == cases.READ:
                app.read(stream)
            elif kind == cases.WRITE:
                app.head(stream, b"\x88")
                app.write(stream, 300 * number, False)
            elif kind == cases.FINISH:
                app.head(stream, b"\x88")
                app.write(stream, number & 1, True, b"\0\1x\1y" if number & 2 else None)
            elif kind == cases.INTERIM:
                app.interim(stream)
        self.flush(False)

    def _compare_opened(self) -> None:
        """Every request that was opened is reported once, in order."""
        opened, reported = self.client.opened, self.app.reported
        if opened == reported:
            return
        if self.conn.closing:
            # Frames after an error are not read; a request that the end cut off may be told of.
            last = self.conn.last_stream_id
            begun = {number for number in opened if number > last} | {self.client.begun()}
            opened = [number for number in opened if number <= last]
            if self.app.cut_off == 1 and reported[:-1] == opened and reported[-1] in begun:
                return
        if opened != reported:
            raise Broken(f"opened were {opened[-20:]}, reported {reported[-20:]}")

    def compare_heads(self) -> None:
        """What is remembered of header blocks changes nothing."""
        assert self.reference is not None
        heads = dict(zip(self.app.reported, self.app.heads, strict=True))
        for number, block in self.client.blocks:
            try:
                fields = self.reference.decode(block)
            except SessionError as error:
                if self.conn.error is None and not self.conn.closing:
                    raise Broken(f"a block that is not HPACK is taken: {error}") from None
                return
            head = heads.pop(number, None)
            if head is None:
                continue
            wanted = parse_request(fields, self.limits.extended_connect)
            if self.reference.too_large != head.too_large:
                raise Broken(f"stream {number} is too large, or not, as remembered")
            if not head.too_large:
                _compare(number, head, wanted)

    def check_bounds(self) -> None:
        """Nothing that is kept for a peer is over its bound, and the books balance."""
        conn, limits = self.conn, self.limits
        streams = conn.streams
        decoder = conn._decoder
        room = _SLACK + (LARGEST_SECTION + 100) * (len(streams) + 2)
        counts = (
            ("streams", len(streams), limits.max_streams),
            ("recent resets", len(conn._resets), budget.MAX_RECENT_RESETS),
            ("lingering", len(conn._lingering), budget.MAX_LINGERING),
            ("gaps", len(conn._gaps), budget.MAX_GAPS),
            ("priority updates", len(conn._updates), limits.max_streams),
            ("remembered heads", len(conn._heads), budget.MAX_REMEMBERED_HEADS),
            ("patterns", len(conn._patterns), budget.MAX_PATTERNS),
            ("tail bytes", len(conn._tail), 9 + 16_384),
            ("HPACK table", decoder._size, min(decoder._limit, 4096)),
            ("block frames", conn._block_frames if conn._block else 0, budget.MAX_BLOCK_FRAMES),
            (
                "block bytes",
                sum(map(len, conn._block)) if conn._block else 0,
                budget.MAX_BLOCK_BYTES + 16_384,
            ),
            (
                "output bytes",
                conn.out_size,
                budget.OUTPUT_LIMIT + budget.MAX_CONTROL_OUTPUT + room,
            ),
        )
        near = self.near
        for name, count, bound in counts:
            if count:
                if count > bound:
                    raise Broken(f"{name}: {count}, over {bound}")
                if count > near.get(name, 0.0) * bound:
                    near[name] = count / bound
        if conn.out_size != sum(map(len, conn._out)):
            raise Broken(f"out_size is {conn.out_size}, not what is in the output")
        queued = unread = 0
        for stream in streams.values():
            queued += stream.queued
            unread += stream.unread
            if stream.closed or stream.queued != sum(map(len, stream.queue)):
                raise Broken(f"{stream} is closed, or its queue is not what it says")
        if conn.queued != queued:
            raise Broken(f"queued is {conn.queued}, the streams have {queued}")
        if not streams and (conn._ready or conn._ready._levels):
            raise Broken("a stream that is gone has its turn")
        if decoder._size != sum([len(n) + len(v) + 32 for n, v in decoder._dynamic]):
            raise Broken("the HPACK table's size is not its entries'")
        if conn.closing:
            if streams:
                raise Broken("a closing connection has open streams")
            return
        full = max(limits.connection_window, 65_535)
        if conn.receive_window + conn._uncredited + unread != full:
            raise Broken(
                f"{full - conn.receive_window - conn._uncredited - unread} bytes of the "
                "receive window are lost"
            )
        if not self.racing:
            self._compare_windows()

    def _compare_windows(self) -> None:
        conn, client = self.conn, self.client
        if conn.receive_window != client.room:
            raise Broken(f"the receive window is {conn.receive_window}, not {client.room}")
        if conn.window != client.window:
            raise Broken(f"the window is {conn.window}, not {client.window}")
        for number, stream in conn.streams.items():
            if stream.window != client.streams[number].window:
                raise Broken(f"the window of stream {number} is {stream.window}")
            if stream.queue and not conn.blocked and min(stream.window, conn.window) > 0:
                raise Broken(f"stream {number} waits with its windows open")

    def finish(self) -> None:
        """Lose the connection, if it is not over, and balance the books."""
        conn, app = self.conn, self.app
        conn.blocked = False
        conn.pump()
        self.flush(False)
        if not conn.closing:
            self.check_bounds()
            conn.end()
            self.flush(False)
        self._compare_opened()
        self.check_bounds()
        if self.reference is not None:
            self.compare_heads()
        views = self.client.streams
        for stream in app.streams:
            work, view = stream.context, views[stream.id]
            if not work.over:
                raise Broken(f"stream {stream.id} never ended")
            if work.over == "sent" and (not view.ended or view.received != work.given):
                raise Broken(f"stream {stream.id} was sent, but its client has no whole response")
            if view.ended and work.over != "sent":
                raise Broken(f"the response of stream {stream.id} is whole, it was {work.over}")
            if work.ended and b"".join(work.got) != b"".join(view.content):
                raise Broken(f"the content of request {stream.id} is not what was sent")
            app.seen.add(work.over)
        for number, size in app.prepared.items():
            if not views[number].ended or views[number].received != size:
                raise Broken(f"stream {number} was answered, but its client has no response")
        if app.prepared:
            app.seen.add("prepared")


def _compare(number: int, head: RequestHead, wanted: RequestHead) -> None:
    for part in ("method", "scheme", "authority", "path", "protocol", "fields", "content_length"):
        if getattr(head, part) != getattr(wanted, part):
            raise Broken(
                f"stream {number}: {part} is {getattr(head, part)!r}, not {getattr(wanted, part)!r}"
            )
    extra = ("a stream depends on itself", "content-length without content")
    if head.fault != wanted.fault and not (wanted.fault is None and head.fault in extra):
        raise Broken(f"stream {number}: the fault is {head.fault!r}, not {wanted.fault!r}")


def begin(case: Case) -> Run:
    """Make a case's connection, as it is before the first step."""
    run = Run(case)
    run.flush(False)
    if case.profile & cases.PREFACE_SENT:
        run.receive(GREETING)
    return run


def execute(case: Case) -> Result:
    """Run a case; return what there is to learn. Whatever is wrong is raised."""
    run = begin(case)
    size = 0
    for kind, number, data in case.steps:
        run.step(kind, number, data)
        run.check_bounds()
        size += len(data)
    run.finish()
    client, app = run.client, run.app
    outcomes = app.seen
    error = run.conn.error
    if error is not None:
        outcomes.add(_VARIABLE("*", f"{error.code.name}: {error.detail}"))
    elif client.goaway is not None:
        outcomes.add("left by agreement")
    for code in client.codes:
        outcomes.add(f"RST_STREAM {code}")
    return Result(frozenset(outcomes), len(app.reported), size, run.costs, run.near)
