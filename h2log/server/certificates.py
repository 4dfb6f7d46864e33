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
import ipaddress
import os
import re
import secrets
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from h2log.errors import UsageError

__all__ = [
    "Action",
    "Certificates",
    "Step",
    "certificate_names",
    "check_pair",
    "make_certificates",
    "trust_instructions",
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
LOCAL_NAMES = ("localhost", "*.localhost", "127.0.0.1", "::1")

# A label of letters, digits and inner hyphens (RFC 1034 section 3.5, RFC 1123 section 2.1).
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# A last label of this shape makes clients parse the host as an IPv4 address (WHATWG URL, 3.5).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Python's codec is IDNA 2003, which maps these away; browsers (UTS #46) keep them: another name.
_DEVIATIONS = frozenset("ßẞς\u200c\u200d")

_T = TypeVar("_T")


class _UnusableError(Exception):
    """A file is there, but what it should hold is not; the message completes `it ...`."""


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


def certificate_names(extra: Iterable[str] = (), hostname: str | None = None) -> tuple[str, ...]:
    """Return the names of a server certificate: the local ones, this machine's, and `extra`.

    `hostname` is the machine's name, by default asked of the system; one that cannot stand in a
    certificate is left out. An extra name is an IP address (RFC 5280 section 4.2.1.6), a DNS name
    of letters, digits and hyphens (RFC 1123 section 2.1), an internationalised one (stored as
    A-labels, RFC 5280 section 7.2), or a wildcard, `*.` before at least two labels (RFC 9525
    section 6.3). OpenSSL and curl want those two labels and ignore `*.localhost`: for them,
    name the host itself. Raises UsageError naming the first bad one.
    """
    names = list(LOCAL_NAMES)
    try:
        names.append(_normal(socket.gethostname() if hostname is None else hostname))
    except UsageError:
        pass
    names.extend(_normal(name) for name in extra)
    return tuple(dict.fromkeys(names))


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
        with _locked(folder):
            return _make(folder, wanted, force, now.astimezone(UTC).replace(microsecond=0))
    except OSError as error:
        where = error.filename2 or error.filename or folder
        raise UsageError(
            f"cannot make certificates in {folder}: {error.strerror or error}: {where}"
        ) from error


def check_pair(
    cert_path: str | Path, key_path: str | Path, *, now: datetime | None = None
) -> list[str]:
    """Check that a server can start with this certificate chain and key; return warnings.

    Raises UsageError, one line naming the file, when one is missing or cannot be read, is not
    PEM (RFC 7468), when the key is encrypted, or when it is not that of the first certificate,
    which has to be the server's own (RFC 8446 section 4.4.2). A certificate outside its validity
    period (RFC 5280 section 4.1.2.5) is a warning: whether to accept it is the client's choice.
    """
    chain = _checked(_load_chain, Path(cert_path), "certificate")
    key = _checked(_load_key, Path(key_path), "key")
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


def trust_instructions(
    ca_path: str | Path,
    *,
    platform: str = sys.platform,
    os_release: str | None = None,
    has: Callable[[str], object] = shutil.which,
) -> list[str]:
    """Return `where: command` lines that make this system trust the CA, and curl without that.

    `platform` is as `sys.platform`; `os_release` the text of /etc/os-release (freedesktop.org
    os-release(5)), read when it is None; `has` tells whether a tool is installed. No file is
    changed, and a CA that cannot be read only loses its own name in the lines. Raises nothing.
    """
    path = str(Path(ca_path).absolute())
    quoted = f'"{path}"' if platform == "win32" else shlex.quote(path)
    try:
        name = _common_name(_load_chain(Path(ca_path))[0])
    except (OSError, UsageError, _UnusableError):
        name = "h2log CA"
    lines: list[str] = []
    if platform == "darwin":
        keychain = "/Library/Keychains/System.keychain"
        lines.append(
            f"macOS: sudo security add-trusted-cert -d -r trustRoot -k {keychain} {quoted}"
        )
    elif platform == "win32":
        lines.append(f"Windows: certutil -addstore -user Root {quoted}")
    else:
        if os_release is None:
            try:
                os_release = Path("/etc/os-release").read_text("utf-8", "replace")
            except OSError:
                os_release = ""
        lines += _linux_lines(quoted, shlex.quote(name), os_release, has)
    lines.append(f"curl: curl --cacert {quoted} https://localhost:8443/")
    return lines


def _linux_lines(
    path: str, name: str, os_release: str, has: Callable[[str], object]
) -> Iterator[str]:
    """Yield the lines for the system's store, and for the browsers, which have their own."""
    ids = {
        word
        for line in os_release.splitlines()
        if line.startswith(("ID=", "ID_LIKE="))
        for word in line.partition("=")[2].strip("\"' ").split()
    }
    debian, anchor = bool(ids & {"debian", "ubuntu", "alpine"}), False
    if not debian:
        anchor = bool(ids & {"fedora", "rhel", "centos", "arch", "suse", "opensuse"})
    if not debian and not anchor:
        debian, anchor = bool(has("update-ca-certificates")), bool(has("trust"))
    unknown = not debian and not anchor
    if debian or unknown:
        # Only files that end in .crt are read there: update-ca-certificates(8).
        yield (
            f"Debian, Ubuntu: sudo cp {path} /usr/local/share/ca-certificates/h2log-ca.crt"
            " && sudo update-ca-certificates"
        )
    if anchor or unknown:
        yield f"Fedora, Arch, openSUSE: sudo trust anchor {path}"
    package = "" if has("certutil") else " (certutil is in libnss3-tools or nss-tools)"
    add = f"certutil -A -t C,, -n {name} -i {path}"
    yield f'Chromium{package}: {add} -d "sql:$HOME/.pki/nssdb"'
    yield (
        f"Firefox{package}: for p in ~/.mozilla/firefox/*/cert9.db; do"
        f' {add} -d "sql:${{p%/*}}"; done'
    )


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
        notes += _tighten(ca_key_path)
    else:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _new_ca(ca_key, now)
        _store_pair(ca_path, [ca], ca_key_path, ca_key)
    if key is not None:
        notes += _tighten(key_path)
    if step.action is not Action.REUSED:
        leaf_key = key or ec.generate_private_key(ec.SECP256R1())
        chain = [_new_leaf(leaf_key, names, ca, ca_key, now), ca]
        _store_pair(path, chain, key_path, leaf_key if key is None else None)
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
        chain = _load_chain(path)
    except FileNotFoundError:
        faults.append(f"{path.name} was missing")
    except _UnusableError as error:
        faults.append(f"{path.name} {error}")
    try:
        key = _load_key(key_path)
    except FileNotFoundError:
        faults.append(f"{key_path.name} was missing")
    except _UnusableError as error:
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
    wanted = _general_names(names)
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


def _normal(name: str) -> str:
    """Return a name as the certificate spells it; UsageError names a bad one."""
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        if getattr(ip, "scope_id", None) is not None:
            raise UsageError(f"name {name!r}: a certificate cannot hold an address with a zone")
        return str(ip)
    labels = name.removesuffix(".").split(".")
    wildcard = labels[0] == "*"
    try:
        host = ".".join(_a_label(label) for label in labels[wildcard:])
    except UnicodeError as error:
        raise UsageError(f"name {name!r} is not a DNS name: {error}") from None
    # 253 characters are the 255 octets on the wire (RFC 1035 section 3.1).
    if len(host) + 2 * wildcard > 253:
        raise UsageError(f"name {name!r} is not a DNS name: longer than 253 characters")
    if not host or _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise UsageError(f"name {name!r} is neither a DNS name nor an IP address")
    if wildcard and "." not in host and host != "localhost":
        raise UsageError(f"name {name!r}: clients accept no wildcard right below a top-level name")
    return f"*.{host}" if wildcard else host


def _a_label(label: str) -> str:
    """Return the A-label (RFC 5890 section 2.3.2.1) of one label; UnicodeError for a bad one."""
    if bad := _DEVIATIONS.intersection(label):
        raise UnicodeError(f"write the label with {min(bad)!r} in its xn-- form")
    ascii_label = label.lower() if label.isascii() else label.encode("idna").decode("ascii").lower()
    if not _LABEL.fullmatch(ascii_label):
        raise UnicodeError(f"{label!r} is not 1 to 63 letters, digits and inner hyphens")
    return ascii_label


def _general_names(names: tuple[str, ...]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


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
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _attribute(cert: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    return next((str(found.value) for found in cert.subject.get_attributes_for_oid(oid)), "")


def _ours(cert: x509.Certificate) -> bool:
    return _attribute(cert, NameOID.ORGANIZATION_NAME) == ORGANIZATION


def _common_name(cert: x509.Certificate) -> str:
    return _attribute(cert, NameOID.COMMON_NAME) or "h2log CA"


# -- files ---------------------------------------------------------------------------------------


def _checked(load: Callable[[Path], _T], path: Path, what: str) -> _T:
    """Return `load(path)`, with every failure turned into one line."""
    try:
        return load(path)
    except FileNotFoundError:
        raise UsageError(f"{what} {path} not found: `h2log certs` makes one") from None
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise UsageError(f"{what} {path} cannot be read: {text}") from None
    except _UnusableError as error:
        raise UsageError(f"{what} {path} {error}") from None


def _load_chain(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, at least one; raises OSError or _UnusableError."""
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
        for cert in chain:
            # These are parsed when asked for; a damaged certificate is to be found out here.
            _ = (cert.subject, cert.extensions, cert.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise _UnusableError("holds no readable PEM certificate") from None
    return chain


def _load_key(path: Path) -> PrivateKeyTypes:
    """Return the key of a PEM file; raises OSError, _UnusableError, or UsageError: encrypted."""
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError:
        raise UsageError(f"key {path} is encrypted: store it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _UnusableError("holds no readable PEM private key") from None


def _store_pair(
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
        _replace(key_path, pem, 0o600)
    pem = b"".join(cert.public_bytes(serialization.Encoding.PEM) for cert in chain)
    _replace(path, pem, 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
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


def _tighten(key_path: Path) -> list[str]:
    """Take a key away from everyone but its owner; return what there is to say about it."""
    if sys.platform == "win32" or not key_path.stat().st_mode & 0o077:
        return []
    try:
        key_path.chmod(0o600)
    except OSError as error:
        return [f"{key_path} is open to other users: {error.strerror}"]
    return [f"{key_path} was open to other users: its mode is 0600 now"]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
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
