"""SETTINGS values: what we offer, and what a peer may say (RFC 9113 section 6.5.2)."""

from __future__ import annotations

from typing import Final, NamedTuple

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from h2log.errors import SessionError
from h2log.http2.budget import BUDGETS, Budget
from h2log.http2.frames import MAX_WINDOW, SETTING

__all__ = ["EngineLimits", "parse_settings"]

HEADER_TABLE_SIZE: Final = int(SettingCodes.HEADER_TABLE_SIZE)
ENABLE_PUSH: Final = int(SettingCodes.ENABLE_PUSH)
MAX_CONCURRENT_STREAMS: Final = int(SettingCodes.MAX_CONCURRENT_STREAMS)
INITIAL_WINDOW_SIZE: Final = int(SettingCodes.INITIAL_WINDOW_SIZE)
MAX_FRAME_SIZE: Final = int(SettingCodes.MAX_FRAME_SIZE)
MAX_HEADER_LIST_SIZE: Final = int(SettingCodes.MAX_HEADER_LIST_SIZE)
ENABLE_CONNECT_PROTOCOL: Final = int(SettingCodes.ENABLE_CONNECT_PROTOCOL)
NO_RFC7540_PRIORITIES: Final = 0x9
"""RFC 9218 section 2.1; `h2` has no name for it."""


_SWITCHES: Final = {
    ENABLE_PUSH: "ENABLE_PUSH",
    ENABLE_CONNECT_PROTOCOL: "ENABLE_CONNECT_PROTOCOL",
    NO_RFC7540_PRIORITIES: "NO_RFC7540_PRIORITIES",
}
"""Settings that are 0 or 1 (RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1)."""


class EngineLimits(NamedTuple):
    """What the engine holds a peer to. Sizes in bytes, times in seconds."""

    max_streams: int = 100
    max_header_bytes: int = 32_768
    max_header_fields: int = 100
    stream_window: int = 256 * 1024
    connection_window: int = 1024 * 1024
    preface_timeout: float = 10.0
    settings_timeout: float = 10.0
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 75.0
    stall_timeout: float = 60.0
    min_rate: int = 100
    extended_connect: bool = False
    budgets: dict[str, Budget] = BUDGETS

    def offered(self) -> dict[int, int]:
        """Return the values of our SETTINGS frame by identifier."""
        values = {
            MAX_CONCURRENT_STREAMS: self.max_streams,
            INITIAL_WINDOW_SIZE: self.stream_window,
            MAX_HEADER_LIST_SIZE: self.max_header_bytes,
            NO_RFC7540_PRIORITIES: 1,
        }
        if self.extended_connect:
            values[ENABLE_CONNECT_PROTOCOL] = 1
        return values


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return a SETTINGS payload's pairs in order; unknown identifiers are among them.

    Raises SessionError for a length that is no multiple of six and for values out of range.
    """
    if len(payload) % 6:
        raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "SETTINGS of a partial entry")
    pairs = [SETTING.unpack_from(payload, pos) for pos in range(0, len(payload), 6)]
    for key, value in pairs:
        if key in _SWITCHES and value > 1:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"{_SWITCHES[key]} is {value}")
        if key == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise SessionError(ErrorCodes.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
        if key == MAX_FRAME_SIZE and not 2**14 <= value < 2**24:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
    return pairs
