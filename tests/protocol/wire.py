"""Bytes in, frames out: what the protocol tests speak the wire with.

- builders (`data`, `headers`, ...) return the bytes of one frame, with control over every field,
  also where that is against the rules;
- `parse` returns the engine's output as typed frames;
- `App` is the layer above the engine: it records what it is told and answers as it was asked to;
- `Peer` is a client: it says its preface, holds a real HPACK encoder and decoder, and checks with
  its `Ledger` that whatever the engine sends, in every test, is what RFC 9113 lets it send.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from h2.errors import ErrorCodes
from hpack import Decoder, Encoder

from h2log.http2.connection import Connection
from h2log.http2.events import Cause
from h2log.http2.head import RequestHead
from h2log.http2.sending import Prepared
from h2log.http2.settings import EngineLimits
from h2log.http2.stream import Stream
from tests.protocol.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    PRIORITY,
    SETTINGS,
    SETTINGS_ACK,
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
    parse,
    settings,
)
from tests.protocol.frames import headers as headers_frame
from tests.protocol.ledger import Ledger

Fields = list[tuple[bytes, bytes]]
Mode = Literal["reply", "hold", "prepared"]

GET: Fields = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"example.org"),
    (b":path", b"/"),
]
POST: Fields = [(b":method", b"POST"), *GET[1:]]
CONTENT = b"hello"
