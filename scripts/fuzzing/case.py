"""One input of the fuzzer: what a peer sends, what the application does, and how time passes.

A case is a list of steps. As bytes it is total: any bytes are some case, so that a fuzzer that
knows nothing of the layout can change them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["OPS", "PREFACE_SENT", "REFERENCE", "Case", "Step", "decode", "encode", "show"]

RECEIVE: Final = 0
TICK: Final = 1
ANSWER: Final = 2
RESET: Final = 3
READ: Final = 4
WRITE: Final = 5
FINISH: Final = 6
INTERIM: Final = 7
BLOCK: Final = 8
UNBLOCK: Final = 9
DRAIN: Final = 10
SHUT: Final = 11
STOP: Final = 12
LOST: Final = 13
FLUSH: Final = 14
OPS: Final = (
    "receive",
    "tick",
    "answer",
    "reset",
    "read",
    "write",
    "finish",
    "interim",
    "block",
    "unblock",
    "drain",
    "shut",
    "stop",
    "lost",
    "flush",
)
"""What a step does, by its number."""

SECONDS: Final = (0.0, 0.01, 0.4, 1.1, 5.0, 11.0, 31.0, 61.0, 100.0, 1e6)
"""How far a tick may jump: around every one of the engine's times."""

PREFACE_SENT: Final = 0x80
"""Bit of `profile`: a preface and SETTINGS come before the steps."""
REFERENCE: Final = 0x40
"""Bit of `profile`: every request is compared with one that is parsed without a memory."""

SCRIPT_SIZE: Final = 8

Step = tuple[int, int, bytes]
"""What to do, a small number that says more, and for RECEIVE the bytes."""


class Case(NamedTuple):
    """Everything that decides what happens: a case runs the same way every time."""

    profile: int
    """Which limits hold, and two bits."""
    script: bytes
    """How the application treats the requests, a byte each, over and over."""
    steps: list[Step]


def encode(case: Case) -> bytes:
    """Return a case as bytes."""
    parts = [bytes((case.profile,)), case.script]
    for kind, number, data in case.steps:
        parts.append(bytes((kind, number)))
        if kind == RECEIVE:
            parts.append(len(data).to_bytes(3, "big"))
            parts.append(data)
    return b"".join(parts)


def decode(data: bytes) -> Case:
    """Return the case that any bytes are."""
    script = data[1 : 1 + SCRIPT_SIZE].ljust(SCRIPT_SIZE, b"\0")
    steps: list[Step] = []
    pos, size = 1 + SCRIPT_SIZE, len(data)
    while pos + 1 < size:
        kind, number = data[pos] % len(OPS), data[pos + 1]
        pos += 2
        piece = b""
        if kind == RECEIVE:
            length = int.from_bytes(data[pos : pos + 3], "big")
            piece = data[pos + 3 : pos + 3 + length]
            pos += 3 + length
        steps.append((kind, number, piece))
    return Case(data[0] if data else 0, script, steps)


def show(case: Case) -> list[str]:
    """Return the lines that tell a person what a case does."""
    lines = [f"limits {case.profile & 7}, script {case.script.hex()}"]
    if case.profile & PREFACE_SENT:
        lines[0] += ", after a preface and SETTINGS"
    for kind, number, data in case.steps:
        more = f" {len(data)} bytes: {data[:64].hex()}" if kind == RECEIVE else f" {number}"
        lines.append(OPS[kind] + more)
    return lines
