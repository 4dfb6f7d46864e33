"""TLS as RFC 9113 section 9.2 wants it, clients' certificates, and what applications ask of it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final

from h2log.access.record import Session
from h2log.config import TlsSettings
from h2log.errors import UsageError

__all__ = ["ALPN", "server_context", "tls_context", "tls_extension"]

ALPN: Final = ["h2", "http/1.1"]
"""What we speak, the preferred first (RFC 7301)."""

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: ephemeral and AEAD only, so none of RFC 9113's appendix A. TLS 1.3 has its own."""

_MODES: Final = {"optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
"""The numbers of RFC 8446 section 4.2.1."""


class _ServerContext(ssl.SSLContext):
    """A context that knows what connections that began with it have in common."""

    certificate = ""
    """Our own certificate, PEM, as it was loaded: the file may be another one tomorrow."""

    @cached_property
    def suites(self) -> dict[str, int]:
        """IANA's numbers of the cipher suites that may be agreed on, by OpenSSL's names."""
        return {str(cipher["name"]): int(cipher["id"]) & 0xFFFF for cipher in self.get_ciphers()}


def _note_sni(tls: Any, name: str | None, context: ssl.SSLContext) -> None:
    """Keep the server name that the client asked for (RFC 6066 section 3), for the log."""
    tls.sni = name or ""


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return the context for the settings; see `server_context`."""
    return server_context(tls.cert, tls.key, tls.client_ca, tls.client_cert)


def server_context(
    cert: str, key: str, client_ca: str = "", client_cert: str = "none"
) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and 1.3 with the PEM certificate chain and key of those paths.

    Unless `client_cert` is `none`, clients are asked for a certificate from one of the authorities
    in the file `client_ca`; whoever has none is let in when it is `optional`, and not when it is
    `required`. No compression and no renegotiation (RFC 9113 section 9.2.1). Raises UsageError
    naming the file that is missing, unreadable, or does not match.
    """
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(ALPN)
    # One ticket resumes a session as well as OpenSSL's two, for less work in each handshake.
    context.num_tickets = 1
    context.sni_callback = _note_sni
    try:
        context.load_cert_chain(cert, key, _no_passphrase)
        with open(cert, "rb") as file:
            context.certificate = _first_certificate(file.read())
    except (ssl.SSLError, OSError, ValueError) as error:
        # OpenSSL tells little of what is wrong. What does, `cryptography`, takes 12 MB of memory,
        # which a good pair does without.
        from h2log.server.pem import check_pair

        check_pair(cert, key)
        reason = getattr(error, "reason", None) or error
        raise UsageError(
            f"cannot use the certificate {cert} with the key {key}: {reason}"
        ) from None
    if client_cert in _MODES:
        import cryptography.x509  # noqa: F401 - now, and not when the first of them comes

        _ask_clients(context, client_ca)
        context.verify_mode = _MODES[client_cert]
    return context


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL would ask for it at the terminal


def _ask_clients(context: ssl.SSLContext, path: str) -> None:
    """Let clients' certificates be from the authorities in the file `path`. Raises UsageError."""
    try:
        context.load_verify_locations(cafile=path)
    except FileNotFoundError:
        raise UsageError(f"tls.client_ca: no file {path}; name the authorities, PEM") from None
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        reason = str(reason).replace("_", " ").lower()
        raise UsageError(
            f"tls.client_ca: cannot use {path} ({reason}); expected certificates of authorities, "
            "PEM"
        ) from None
    if not context.get_ca_certs():
        raise UsageError(f"tls.client_ca: no authority's certificate is in {path}")


def _first_certificate(data: bytes) -> str:
    """Return the first certificate of a PEM file, without what stands around it."""
    begin = data.find(b"-----BEGIN CERTIFICATE-----")
    end = data.find(b"-----END CERTIFICATE-----", begin)
    return data[begin:end].decode("ascii", "replace") + "-----END CERTIFICATE-----\n"


def tls_extension(session: Session) -> dict[str, Any] | None:
    """Return ASGI's `tls` extension of a session; None where it has no TLS.

    See asgi.readthedocs.io/en/latest/specs/tls.html. It is made once a connection, when it is first
    asked for: not to be changed. `client_cert_error` is None always, as a client whose certificate
    is not valid is refused in the handshake. A resumed session has of the client's chain only the
    certificate itself (RFC 8446 section 2.2: certificates are not sent again).
    """
    if session.tls is None:
        return None
    told = session.tls_told
    if told is None:
        told = session.tls_told = _told(session.tls_object, session.tls.version, session.tls.cipher)
    return told


def _told(tls: Any, version: str, cipher: str) -> dict[str, Any]:
    context = getattr(tls, "context", None)
    ours = context if isinstance(context, _ServerContext) else None
    chain = [] if tls is None else list(_client_chain(tls))
    name = None
    if chain:
        from cryptography import x509

        name = x509.load_der_x509_certificate(chain[0]).subject.rfc4514_string()
    return {
        "server_cert": (ours.certificate or None) if ours is not None else None,
        "client_cert_chain": tuple(ssl.DER_cert_to_PEM_cert(one) for one in chain),
        "client_cert_name": name,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(version),
        "cipher_suite": ours.suites.get(cipher) if ours is not None else None,
    }


def _client_chain(tls: Any) -> Iterable[bytes]:
    """Return the certificates that a client has sent, DER, its own first; none if it has none."""
    leaf: bytes | None = tls.getpeercert(True)
    if leaf is None:
        return []
    if hasattr(tls, "get_unverified_chain"):  # Python 3.13
        return tls.get_unverified_chain() or [leaf]
    inner = getattr(tls, "_sslobj", None)  # what the method of 3.13 is made of
    chain = None if inner is None else inner.get_unverified_chain()
    if not chain:
        return [leaf]
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in chain]
