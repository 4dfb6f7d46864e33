"""Development certificates: a local authority (CA) and the server certificate that it issues.

A folder holds two pairs: `ca.pem` + `ca-key.pem` and `localhost.pem` + `localhost-key.pem`. A run
first looks at both and decides, then writes, so a refusal changes nothing. What can go wrong in
between is ruled by the order of the writes:

* A file is replaced by a rename, whole or not at all; a key has mode 0600 before its first byte.
* A certificate that is issued anew keeps the pair's key where that is good: one rename, and every
  instant has a pair that works.
* A new key is stored as: certificate away, key in place, certificate in place. A crash leaves a
  certificate missing, never one beside the wrong key, and the next run issues it.
* The CA is stored before the certificate. A crash in between leaves one that the new CA did not
  sign; the next run sees that.
"""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from h2log.errors import UsageError
from h2log.server.names import certificate_names, general_names
from h2log.server.pem import (
    UnusableError,
    load_chain,
    load_key,
    locked,
    store_pair,
    subject_attribute,
    tighten,
)

__all__ = [
    "Action",
    "Certificates",
    "Step",
    "make_certificates",
]

CA_LIFE = timedelta(days=3650)
"""Ten years, as mkcert: trusting an authority is the step that a person has to do by hand."""
LEAF_LIFE = timedelta(days=90)
"""As Let's Encrypt; Apple's platforms refuse more than 825 days even below a local CA."""
RENEW_AT = LEAF_LIFE / 3
"""Issued anew when this much is left, as certbot and Caddy do."""
BACKDATE = timedelta(minutes=5)
"""A client whose clock is a little behind (a phone, a virtual machine) still accepts it."""
ORGANIZATION = "h2log development"
"""Marks what was made here: a working pair of someone else's is not overwritten."""


class Action(StrEnum):
    """What a run did with a pair."""

    CREATED = "created"
    REUSED = "reused"
    REISSUED = "reissued"


@dataclass(frozen=True, slots=True)
class Step:
    """What was done with a pair, and why (`reason` is empty when there is nothing to explain)."""

    action: Action
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.action}: {self.reason}" if self.reason else str(self.action)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the two pairs are, what they say, and what was done.

    `names` are those of the server certificate, as it spells them (IDNA names as A-labels).
    `notes` are lines for the person: a loose key mode that was tightened.
    """

    ca: Path
    ca_key: Path
    cert: Path
    key: Path
    names: tuple[str, ...]
    ca_expires: datetime
    expires: datetime
    ca_step: Step
    step: Step
    notes: tuple[str, ...] = ()


def make_certificates(
    folder: Path, names: Iterable[str] = (), *, force: bool = False, now: datetime | None = None
) -> Certificates:
    """Make, renew or repair the two pairs in `folder`; a run without a reason changes no byte.

    The CA is reused while it is whole and outlives a new certificate. The certificate is issued
    anew when its names are not exactly the requested ones (`certificate_names`), a third of its
    90 days or less is left, the CA changed, or the pair is broken; `force` does it always, with a
    new key. Both follow the profile of RFC 5280 (sections 4.2.1.1 to 4.2.1.12), which Python 3.13
    checks by default (VERIFY_X509_STRICT). `now` is an aware datetime, by default the present.

    Raises UsageError for a bad name, a folder or file that cannot be read or written, an encrypted
    key, or (without `force`) a working pair that was not made here. Raises ValueError for a naive
    `now`.
    """
    wanted = certificate_names(names)
    now = datetime.now(UTC) if now is None else now
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            return _make(folder, wanted, force, now.astimezone(UTC).replace(microsecond=0))
    except OSError as error:
        where = error.filename2 or error.filename or folder
        raise UsageError(
            f"cannot make certificates in {folder}: {error.strerror or error}: {where}"
        ) from error


# -- deciding ------------------------------------------------------------------------------------


def _make(folder: Path, names: tuple[str, ...], force: bool, now: datetime) -> Certificates:
    ca_path, ca_key_path = folder / "ca.pem", folder / "ca-key.pem"
    path, key_path = folder / "localhost.pem", folder / "localhost-key.pem"

    ca_chain, found, reason = _inspect(ca_path, ca_key_path, force)
    ca_key = _p256(found)
    ca_step = _step(reason or _ca_fault(ca_chain[0], ca_key, now), ca_path, ca_key_path)
    ca = ca_chain[0] if ca_step.action is Action.REUSED else None

    chain, found, reason = _inspect(path, key_path, force)
    key = None if force else _p256(found)
    if not reason:
        reason = "the CA is new" if ca is None else _leaf_fault(chain, ca, names, now)
    step = _step(reason or ("forced" if force else ""), path, key_path)

    # Decided; from here on it writes.
    notes = []
    if ca is not None and ca_key is not None:
        notes += tighten(ca_key_path)
    else:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _new_ca(ca_key, now)
        store_pair(ca_path, [ca], ca_key_path, ca_key)
    if key is not None:
        notes += tighten(key_path)
    if step.action is not Action.REUSED:
        leaf_key = key or ec.generate_private_key(ec.SECP256R1())
        chain = [_new_leaf(leaf_key, names, ca, ca_key, now), ca]
        store_pair(path, chain, key_path, leaf_key if key is None else None)
    return Certificates(
        ca=ca_path,
        ca_key=ca_key_path,
        cert=path,
        key=key_path,
        names=names,
        ca_expires=ca.not_valid_after_utc,
        expires=chain[0].not_valid_after_utc,
        ca_step=ca_step,
        step=step,
        notes=tuple(notes),
    )


def _p256(key: PrivateKeyTypes | None) -> ec.EllipticCurvePrivateKey | None:
    """Return the key if it is of the kind that is made here."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    return None


def _step(reason: str, *paths: Path) -> Step:
    if not reason:
        return Step(Action.REUSED)
    if not any(path.exists() for path in paths):
        return Step(Action.CREATED)
    return Step(Action.REISSUED, reason)


def _inspect(
    path: Path, key_path: Path, force: bool
) -> tuple[list[x509.Certificate], PrivateKeyTypes | None, str]:
    """Return what a pair holds as far as it can be read, and why it is not a pair (or empty).

    Raises OSError when a file is there but cannot be read: it may be someone else's, so it is not
    ours to replace. Raises UsageError for an encrypted key, which somebody protected on purpose,
    and, unless `force`, for a working pair that was not made here.
    """
    chain: list[x509.Certificate] = []
    key: PrivateKeyTypes | None = None
    faults = []
    try:
        chain = load_chain(path)
    except FileNotFoundError:
        faults.append(f"{path.name} was missing")
    except UnusableError as error:
        faults.append(f"{path.name} {error}")
    try:
        key = load_key(key_path)
    except FileNotFoundError:
        faults.append(f"{key_path.name} was missing")
    except UnusableError as error:
        faults.append(f"{key_path.name} {error}")
    if not faults and key is not None:
        if chain[0].public_key() != key.public_key():
            faults.append(f"{key_path.name} did not match {path.name}")
        elif not _ours(chain[0]):
            if not force:
                raise UsageError(
                    f"{path} was not made by h2log: move it and its key away, choose another"
                    " folder, or force to replace both"
                )
            faults.append(f"{path.name} was not made by h2log")
    return chain, key, ", ".join(faults)


def _ca_fault(ca: x509.Certificate, key: ec.EllipticCurvePrivateKey | None, now: datetime) -> str:
    """Return why a CA that matches its key cannot issue certificates now, or nothing."""
    if key is None:
        return "its key was not ECDSA P-256"
    try:
        ca.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return "its signature was wrong"
    try:
        authority = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    if not authority:
        return "it was not the certificate of an authority"
    if ca.not_valid_before_utc > now:
        return f"it was valid only from {ca.not_valid_before_utc:%Y-%m-%d}"
    if ca.not_valid_after_utc < now:
        return f"it expired on {ca.not_valid_after_utc:%Y-%m-%d}"
    # A certificate is worth nothing after its issuer's end (RFC 5280 section 6.1.3).
    if ca.not_valid_after_utc < now + LEAF_LIFE:
        return f"it expires on {ca.not_valid_after_utc:%Y-%m-%d}"
    return ""


def _leaf_fault(
    chain: list[x509.Certificate], ca: x509.Certificate, names: tuple[str, ...], now: datetime
) -> str:
    """Return why a certificate that matches its key is not good any more, or nothing."""
    leaf = chain[0]
    try:
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return "the CA changed"
    if chain[1:] != [ca]:
        return "the chain was not certificate, then CA"
    try:
        present = set(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        present = set()
    wanted = general_names(names)
    if present != set(wanted):
        changes = [f"+{name.value}" for name in wanted if name not in present]
        changes += sorted(f"-{name.value}" for name in present.difference(wanted))
        return f"the names changed ({' '.join(changes)})"
    left = leaf.not_valid_after_utc - now
    if leaf.not_valid_before_utc > now:
        return f"it was valid only from {leaf.not_valid_before_utc:%Y-%m-%d}"
    if left < timedelta(0):
        return f"it expired on {leaf.not_valid_after_utc:%Y-%m-%d}"
    if left <= RENEW_AT:
        return f"it had {left.days} days left"
    return ""


# -- issuing -------------------------------------------------------------------------------------


def _usage(*, signature: bool = False, authority: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _owner() -> str:
    """Return user@machine, printable and short enough for a name attribute (RFC 5280, A.1: 64)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a passwd entry
        user = "user"
    return re.sub(r"[^ -~]", "?", f"{user}@{socket.gethostname()}")[:46]


def _new_ca(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    owner = _owner()
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, owner),
            # The key's digest: two CAs of one person stay apart, also in browsers' lists.
            x509.NameAttribute(NameOID.COMMON_NAME, f"h2log CA {owner} {key_id.digest.hex()[:8]}"),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(key_id, critical=False)
        .sign(key, hashes.SHA256())
    )


def _new_leaf(
    key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, _owner()),
                ]
            )
        )
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LEAF_LIFE)
        .add_extension(x509.SubjectAlternativeName(general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _ours(cert: x509.Certificate) -> bool:
    return subject_attribute(cert, NameOID.ORGANIZATION_NAME) == ORGANIZATION


# -- files ---------------------------------------------------------------------------------------
