"""TLS as RFC 9113 section 9.2 wants it."""

from __future__ import annotations

import ssl
from typing import Any, Final

from h2log.errors import UsageError
from h2log.server.pem import check_pair

__all__ = ["ALPN", "server_context"]

ALPN: Final = ["h2", "http/1.1"]
"""What we speak, the preferred first (RFC 7301)."""

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: ephemeral and AEAD only, so none of RFC 9113's appendix A. TLS 1.3 has its own."""


def _note_sni(tls: Any, name: str | None, context: ssl.SSLContext) -> None:
    """Keep the server name that the client asked for (RFC 6066 section 3), for the log."""
    tls.sni = name or ""


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and 1.3 with the PEM certificate chain and key of those paths.

    No compression and no renegotiation (RFC 9113 section 9.2.1). Raises UsageError naming the file
    that is missing, unreadable, or does not match.
    """
    check_pair(cert, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(ALPN)
    # One ticket resumes a session as well as OpenSSL's two, for less work in each handshake.
    context.num_tickets = 1
    context.sni_callback = _note_sni
    try:
        context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise UsageError(
            f"cannot use the certificate {cert} with the key {key}: {reason}"
        ) from None
    return context
