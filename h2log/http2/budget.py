"""What a peer may spend: every bound that protects the engine, with its reason and precedents.

Two kinds: sizes, beyond which nothing is taken, and budgets, which are spent by frames that cost
us more than they cost the peer and that no honest peer sends many of. A budget is a token bucket:
`burst` at once, `rate` a second after that. A connection that has spent one is closed with
ENHANCE_YOUR_CALM, and its closing line names the budget.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from h2.errors import ErrorCodes

from h2log.errors import SessionError

__all__ = ["BUDGETS", "Budget", "Purse"]

MAX_BLOCK_FRAMES: Final = 8
"""Frames of one header block, HEADERS and CONTINUATION together.

A block of the accepted size fits in four full frames; an endless one is the CONTINUATION flood
(CVE-2024-27316 and kin). nghttp2 allows 8 CONTINUATION frames, Envoy the same.
"""

MAX_BLOCK_BYTES: Final = 64 * 1024
"""Bytes of one compressed header block: twice what its fields may decode to (nghttp2: 64 KiB)."""

MAX_REMEMBERED_HEADS: Final = 64
"""Header blocks remembered a connection, of at most `MAX_REMEMBERED_BLOCK` bytes each.

A browser's page or a load of one URL repeats a handful; more would let an idle connection keep
more memory than its share.
"""

MAX_PATTERNS: Final = 4
"""Header blocks a connection of which all but the path is remembered: a browser's pages, styles,
scripts and images differ in `accept` and its kin."""

MAX_REMEMBERED_BLOCK: Final = 256
"""Bytes of the longest header block that is remembered."""

MAX_RECENT_RESETS: Final = 1000
"""Streams that we reset and of which frames may still be on their way (RFC 9113 section 5.1)."""

MAX_GAPS: Final = 32
"""Runs of skipped stream identifiers that are told from closed ones; Firefox leaves one."""

MAX_PRIORITY_VALUE: Final = 64
"""Bytes of a PRIORITY_UPDATE that are read: `u=7, i` is 6, and extensions none yet."""

LINGER: Final = 1.0
"""Seconds between an early response and the RST_STREAM(NO_ERROR) that follows it."""

MAX_LINGERING: Final = 100
"""Requests a connection that were answered early and are still being sent."""

OUTPUT_LIMIT: Final = 128 * 1024
"""Bytes of output that may gather before they are handed to the transport: measured with large
files, 64 KiB costs 3 % more, 256 KiB nothing less, and a stalled peer holds this much."""

MAX_CONTROL_OUTPUT: Final = 64 * 1024
"""Bytes of output that may gather while the peer does not read: some 3,800 acknowledgements.

A peer that asks without reading the answers (CVE-2019-9512, 9515) would make them pile up; nginx
and nghttp2 (1,000 queued acknowledgements) bound the same.
"""


class Budget(NamedTuple):
    """A token bucket: `burst` at once, then `rate` a second."""

    burst: int
    rate: float


BUDGETS: Final[dict[str, Budget]] = {
    # HEADERS + RST_STREAM (CVE-2023-44487): a browser that leaves a page resets what is open, 100
    # streams at a time. nghttp2: the same burst and rate.
    "rapid_reset": Budget(1000, 33),
    # Frames that force us to reset (CVE-2025-8671): malformed requests, window and length errors,
    # streams over the limit. An honest client sends none; a few hundred streams at the very first
    # moment, before it knows our limit of 100, are its right (RFC 9113 section 5.1.2 has REFUSED).
    "server_reset": Budget(100, 1),
    # PING (CVE-2019-9512) is for measuring and for keeping alive: gRPC sends one each 10 s at most,
    # browsers one each 45 s, and a client that measures bandwidth about one for each round trip.
    "ping": Budget(100, 10),
    # SETTINGS (CVE-2019-9515) are sent at the start, and after that when a window is tuned.
    "settings": Budget(50, 5),
    # PRIORITY and PRIORITY_UPDATE (CVE-2019-9513): Firefox sends five at the start, and browsers
    # one when a resource becomes more or less urgent; up to one for each stream.
    "priority": Budget(1000, 100),
    # WINDOW_UPDATE: two for each request, and for each 16 KiB that we sent, are free; this is for
    # those beyond, such as a client that opens every stream's window wide at its start.
    "window_update": Budget(1000, 100),
    # DATA without content that does not end its stream (CVE-2019-9518).
    "empty_data": Budget(100, 10),
    # Frames of streams that are over: they may have been on their way, but not for ever.
    "stray_frame": Budget(1000, 100),
    # Frames of unknown types are ignored by the rules, but reading them is work; Chromium sends
    # one greasing frame now and then.
    "unknown_frame": Budget(100, 10),
}
"""The defaults, by name; `limits.budgets` changes them."""


class Purse:
    """What one connection has left of each budget. Costs nothing until something is spent."""

    __slots__ = ("_budgets", "_left")

    def __init__(self, budgets: dict[str, Budget]) -> None:
        self._budgets = budgets
        self._left: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted

    def spend(self, name: str, now: float) -> None:
        """Take a token of the budget `name` at `now`.

        Raises SessionError(ENHANCE_YOUR_CALM) when there is none.
        """
        burst, rate = self._budgets[name]
        tokens, then = self._left.get(name, (burst, now))
        tokens = min(burst, tokens + (now - then) * rate) - 1
        if tokens < 0:
            raise SessionError(ErrorCodes.ENHANCE_YOUR_CALM, f"the budget {name} is spent")
        self._left[name] = tokens, now
