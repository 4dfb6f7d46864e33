"""What signs the cookies of user sessions: secrets, and ids that carry their signature.

A cookie's value is `id.signature`: 256 random bits and HMAC-SHA-256 over them (RFC 2104), both in
base64url without padding (RFC 4648 section 5), 43 characters each. The key is derived from the
secret and the cookie's name, so that a value made for one cookie is none for another.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from h2log.errors import UsageError

__all__ = ["SECRET_BYTES", "Signer", "new_token", "secrets_from_env", "secrets_from_file"]

SECRET_BYTES: Final = 32
"""The fewest bytes of a secret: the length of HMAC-SHA-256's output, below which RFC 2104 section 3
calls a key weaker."""

_REMEDY: Final = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
_VALUE: Final = re.compile(r"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})").fullmatch


def new_token() -> str:
    """Return 256 random bits as 43 characters of base64url."""
    return secrets.token_urlsafe(32)


def _checked(secret: str | bytes) -> bytes:
    """Return a secret as bytes. Raises TypeError and ValueError for what is none."""
    if not isinstance(secret, str | bytes):
        raise TypeError(f"a secret is text or bytes, not {type(secret).__name__}")
    raw = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
    if len(raw) < SECRET_BYTES:
        raise ValueError(
            f"the secret of user sessions has {len(raw)} bytes, at least {SECRET_BYTES} are needed:"
            f" {_REMEDY}"
        )
    return raw


class Signer:
    """Signs ids, and tells its own signatures from others.

    `secret` is one secret or several: the first signs, all of them verify, so that a secret is
    changed by putting the new one in front. `purpose` is what the signatures are for. Raises
    ValueError for a secret of fewer than `SECRET_BYTES` bytes, or none.
    """

    def __init__(self, secret: str | bytes | Sequence[str | bytes], purpose: str) -> None:
        several = [secret] if isinstance(secret, str | bytes) else list(secret)
        if not several:
            raise ValueError(f"user sessions need a secret: {_REMEDY}")
        label = b"h2log user session\0" + purpose.encode()
        self._keys = [hmac.digest(_checked(one), label, hashlib.sha256) for one in several]

    def sign(self, token: str) -> str:
        """Return `token` and its signature, as one text."""
        return f"{token}.{_signature(self._keys[0], token)}"

    def verify(self, value: str) -> tuple[str, bool] | None:
        """Return the id of a signed text and whether today's secret signed it; None for any other.

        Takes as long for a wrong signature as for a right one. Text of another shape is refused
        unseen.
        """
        found = _VALUE(value)
        if found is None:
            return None
        token, signature = found.groups()
        matches = [
            hmac.compare_digest(_signature(key, token), signature) for key in self._keys
        ]  # all of them, whichever fits
        return (token, matches[0]) if any(matches) else None


def _signature(key: bytes, token: str) -> str:
    digest = hmac.digest(key, token.encode("ascii"), hashlib.sha256)
    return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def secrets_from_env(name: str) -> list[str]:
    """Return the secrets in an environment variable, separated by white space; the first signs.

    Raises UsageError, naming the variable, when it is not set or one of them is too short.
    """
    found = os.environ.get(name, "").split()
    if not found:
        raise UsageError(f"the environment variable {name} is not set: {_REMEDY}")
    return _usable(found, f"environment variable {name}")


def secrets_from_file(path: str | os.PathLike[str], *, create: bool = False) -> list[str]:
    """Return the secrets in a file, one a line; the first signs, `#` begins a comment line.

    With `create` a file that is not there is made, with one new secret, for its owner alone
    (mode 0600); of several processes that do so at once all get the same. Raises UsageError,
    naming the file, when it is not there, cannot be read, is open to other users, has no secret or
    one that is too short.
    """
    path = Path(path)
    try:
        if create and not path.exists():
            _create(path)
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"secret file {path} not found: {_REMEDY}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"secret file {path} cannot be read: {reason}") from None
    except UnicodeDecodeError:
        raise UsageError(f"secret file {path} is no text: one secret a line, {_REMEDY}") from None
    if os.name == "posix" and mode & 0o077:
        raise UsageError(f"secret file {path} is open to other users: chmod 600 {path}")
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise UsageError(f"secret file {path} has no secret: {_REMEDY}")
    return _usable(found, f"secret file {path}")


def _usable(found: list[str], place: str) -> list[str]:
    for secret in found:
        try:
            _checked(secret)
        except ValueError as error:
            raise UsageError(f"{place}: {error}") from None
    return found


def _create(path: Path) -> None:
    """Make a file with a new secret, whole or not at all; one that is there meanwhile stays."""
    temporary = path.with_name(f".{secrets.token_hex(8)}-{path.name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_urlsafe(48)}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # fails where another process was first: a rename would not
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
