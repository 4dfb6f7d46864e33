"""Certificates and keys as PEM files: reading, checking, and replacing them whole."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from h2log.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = [
    "UnusableError",
    "check_pair",
    "checked",
    "load_chain",
    "load_key",
    "locked",
    "replace_file",
    "store_pair",
    "subject_attribute",
    "tighten",
]

_T = TypeVar("_T")

_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class UnusableError(Exception):
    """A file is there, but what it should hold is not; the message completes `it ...`."""


def check_pair(
    cert_path: str | Path, key_path: str | Path, *, now: datetime | None = None
) -> list[str]:
    """Check that a server can start with this certificate chain and key; return warnings.

    Raises UsageError, one line naming the file, when one is missing or cannot be read, is not
    PEM (RFC 7468), when the key is encrypted, or when it is not that of the first certificate,
    which has to be the server's own (RFC 8446 section 4.4.2). A certificate outside its validity
    period (RFC 5280 section 4.1.2.5) is a warning: whether to accept it is the client's choice.
    """
    chain = checked(load_chain, Path(cert_path), "certificate")
    key = checked(load_key, Path(key_path), "key")
    public = key.public_key()
    if public != chain[0].public_key():
        place = next((n for n, c in enumerate(chain, 1) if c.public_key() == public), 0)
        raise UsageError(
            f"key {key_path} does not match certificate {cert_path}"
            + (f": it matches number {place} in that file, which has to be first" if place else "")
        )
    now = datetime.now(UTC) if now is None else now
    begin, end = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    if end < now:
        return [f"certificate {cert_path} expired on {end:%Y-%m-%d %H:%M} UTC"]
    if begin > now:
        return [f"certificate {cert_path} is not valid before {begin:%Y-%m-%d %H:%M} UTC"]
    return []


def checked(load: Callable[[Path], _T], path: Path, what: str) -> _T:
    """Return `load(path)`, with every failure turned into one line."""
    try:
        return load(path)
    except FileNotFoundError:
        raise UsageError(f"{what} {path} not found: `h2log certs` makes one") from None
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise UsageError(f"{what} {path} cannot be read: {text}") from None
    except UnusableError as error:
        raise UsageError(f"{what} {path} {error}") from None


def load_chain(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, at least one; raises OSError or UnusableError."""
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
        for cert in chain:
            # These are parsed when asked for; a damaged certificate is to be found out here.
            _ = (cert.subject, cert.extensions, cert.public_key())
    except _UNREADABLE:
        raise UnusableError("holds no readable PEM certificate") from None
    return chain


def load_key(path: Path) -> PrivateKeyTypes:
    """Return the key of a PEM file; raises OSError, UnusableError, or UsageError: encrypted."""
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError:
        raise UsageError(f"key {path} is encrypted: store it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableError("holds no readable PEM private key") from None


def store_pair(
    path: Path,
    chain: list[x509.Certificate],
    key_path: Path,
    key: ec.EllipticCurvePrivateKey | None,
) -> None:
    """Store a chain, and before it a new key if there is one; see the order at the top."""
    if key is not None:
        path.unlink(missing_ok=True)
        _sync(path.parent)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        replace_file(key_path, pem, 0o600)
    pem = b"".join(cert.public_bytes(serialization.Encoding.PEM) for cert in chain)
    replace_file(path, pem, 0o644)


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Put a whole file in place; it has at most `mode` from its creation on."""
    # Ends in .pem: what version control ignores there, it ignores after a crash, too.
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}-{path.name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the folder's renames last, in their order, over a loss of power."""
    if sys.platform == "win32":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tighten(key_path: Path) -> list[str]:
    """Take a key away from everyone but its owner; return what there is to say about it."""
    if sys.platform == "win32" or not key_path.stat().st_mode & 0o077:
        return []
    try:
        key_path.chmod(0o600)
    except OSError as error:
        return [f"{key_path} is open to other users: {error.strerror}"]
    return [f"{key_path} was open to other users: its mode is 0600 now"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one run at a time decide and write; drop what a crashed one left half written."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: two runs at once are the person's care
            pass
        else:
            for left in folder.glob(".tmp-*-*.pem"):
                left.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def common_name(cert: x509.Certificate) -> str:
    """Return the common name of a certificate's subject."""
    return subject_attribute(cert, NameOID.COMMON_NAME) or "h2log CA"


def subject_attribute(cert: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    """Return the first value of an attribute of a certificate's subject, or nothing."""
    return next((str(found.value) for found in cert.subject.get_attributes_for_oid(oid)), "")
