"""The codes of a Close (RFC 6455 section 7.4)."""

from __future__ import annotations

from typing import Final

__all__ = ["ABNORMAL", "GOING_AWAY", "INTERNAL", "NORMAL", "POLICY", "check_code"]

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
ABNORMAL: Final = 1006
"""No Close has come: never sent, but told to the application."""
POLICY: Final = 1008
INTERNAL: Final = 1011

_SENDABLE: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
"""Of the codes below 3000, those that a Close may have (the IANA registry of RFC 6455, 11.7)."""


def check_code(code: object) -> int:
    """Return a close code that may be sent (RFC 6455 section 7.4); ValueError for any other."""
    if isinstance(code, int) and (code in _SENDABLE or 3000 <= code <= 4999):
        return code
    raise ValueError(
        f"the close code {code!r} cannot be sent; 1000 is the usual one, "
        "and 3000 to 4999 are for applications"
    )
