"""Passwords: hashed with scrypt (RFC 7914), and compared."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final

__all__ = ["check", "hashed"]

COST: Final = (2**14, 8, 5)
"""N, r and p: 16 MiB, and more than a tenth of a second (OWASP, Password Storage Cheat Sheet)."""


def hashed(password: str) -> str:
    """Return what is kept of a password, with a salt of its own: `scrypt$N$r$p$salt$hash`."""
    salt = secrets.token_bytes(16)
    parts = [salt, _derived(password, salt, *COST)]
    return "$".join(["scrypt", *map(str, COST), *(b64encode(part).decode() for part in parts)])


def check(kept: Mapping[str, str], name: str, password: str) -> bool:
    """Say whether a password is that of the account `name`, of which `kept` has the hashes.

    Takes as long for an account that is not there. Runs long: call it in a thread.
    """
    _, cost, size, lanes, salt, expected = kept.get(name, _NOBODY).split("$")
    derived = _derived(password, b64decode(salt), int(cost), int(size), int(lanes))
    return hmac.compare_digest(derived, b64decode(expected)) and name in kept


def _derived(password: str, salt: bytes, cost: int, size: int, lanes: int) -> bytes:
    # What looks the same is the same, however a keyboard composes it (RFC 8265 section 4.2).
    text = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    memory = 128 * size * (cost + lanes + 2)
    return hashlib.scrypt(text, salt=salt, n=cost, r=size, p=lanes, maxmem=2 * memory, dklen=32)


_NOBODY: Final = "$".join(
    ["scrypt", *map(str, COST), b64encode(bytes(16)).decode(), "A" * 43 + "="]
)
