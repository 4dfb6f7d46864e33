"""Sizes and durations as people write them: `64KB`, `1.5GB`, `10s`, `1h30m`."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["duration", "duration_text", "size", "size_text"]

# Powers of 1024, whatever the spelling: so nginx, systemd and winston's files mean them. A size of
# a file or a buffer is a bound, and the few percent between the two readings matter to no one.
_SIZES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_NUMBER: Final = r"[0-9]{1,18}(?:\.[0-9]{1,15})?"
_SIZE: Final = re.compile(rf"({_NUMBER}) ?(?:([kmgt])(?:i?b)?|b)", re.ASCII | re.IGNORECASE)
_PART: Final = re.compile(rf"({_NUMBER}) ?(ms|[smhdw])", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PART.pattern} ?)+", re.ASCII)


def size(text: str) -> int:
    """Return the bytes that a size such as `64KB` means.

    The units are B, KB, MB, GB and TB (also K, KiB …), powers of 1024, in either case. Raises
    ValueError for anything else.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"no size: {text!r}")
    number, unit = found[1], _SIZES[(found[2] or "").lower()]
    return int(number) * unit if number.isdigit() else round(float(number) * unit)


def duration(text: str) -> float:
    """Return the seconds that a duration such as `10s` or `1h30m` means.

    The units are ms, s, m, h, d and w. Raises ValueError for anything else.
    """
    text = text.strip()
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"no duration: {text!r}")
    # Milliseconds are divided, not multiplied by 0.001: 100ms is 0.1, to the last bit.
    return sum(
        float(n) / 1000 if unit == "ms" else float(n) * _SECONDS[unit]
        for n, unit in _PART.findall(text)
    )


def size_text(count: int) -> str:
    """Return bytes as the shortest size that means exactly them."""
    for unit in ("t", "g", "m", "k"):
        if count and count % _SIZES[unit] == 0:
            return f"{count // _SIZES[unit]}{unit.upper()}B"
    return f"{count}B"


def duration_text(seconds: float) -> str:
    """Return seconds as a short duration that means exactly them."""
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    if seconds == int(seconds):
        return f"{seconds:.0f}s"
    if seconds < 1 and round(seconds * 1000) / 1000 == seconds:
        return f"{round(seconds * 1000)}ms"
    return f"{seconds:.15f}".rstrip("0") + "s"
