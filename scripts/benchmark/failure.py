"""The one exception of the benchmark."""

from __future__ import annotations

__all__ = ["BenchError"]


class BenchError(Exception):
    """A figure could not be had; the message is the reason that the report shows."""
