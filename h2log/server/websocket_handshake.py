"""The opening handshake of a WebSocket: what a client wants, and what it is told.

What must hold of a request is in RFC 6455 section 4.2.1, and in RFC 8441 section 5 for HTTP/2,
where key and accept have no use; permessage-deflate is RFC 7692. The leg has seen to it that the
request is an upgrade, or an extended CONNECT, to `websocket`.

An offer of permessage-deflate is taken with the smallest window that both sides may ask for and
that compresses well, 4 KiB (`websockets` does the same): with the usual 32 KiB a connection takes
300 KiB of memory once it has compressed anything, so it is 45.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

from wsproto.utilities import generate_accept_token

from h2log.errors import HTTPError

__all__ = ["DeflateTerms", "Handshake", "read_handshake"]

VERSION: Final = b"13"
_WINDOW_BITS: Final = 12

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_is_word: Final = re.compile(_WORD).fullmatch
# RFC 6455 section 9.1: a value is a token, or a quoted-string that is one once it is unescaped.
_PARAMETER: Final = re.compile(
    rf'[ \t]*;[ \t]*({_WORD})(?:[ \t]*=[ \t]*(?:({_WORD})|"((?:[^"\\]|\\.)*)"))?'
)
_NAME: Final = re.compile(rf"[ \t]*({_WORD})")
_NEXT: Final = re.compile(r"[ \t]*(?:,|\Z)")
_EMPTY: Final = re.compile(r"[ \t]*,")
_BITS: Final = re.compile(r"[89]|1[0-5]").fullmatch

Field = tuple[bytes, bytes]
Parameters = list[tuple[str, str | None]]


class DeflateTerms(NamedTuple):
    """What was agreed on about permessage-deflate (RFC 7692 section 7.1)."""

    server_bits: int
    """The logarithm of our window."""
    client_bits: int | None
    """The same of the client's, where it lets us tell; else it may be 15."""
    server_fresh: bool
    """We begin each message with an empty window (server_no_context_takeover)."""
    client_fresh: bool
    """The client does."""

    @property
    def answer(self) -> bytes:
        """The value of Sec-WebSocket-Extensions that says so."""
        parts = ["permessage-deflate"]
        if self.server_fresh:
            parts.append("server_no_context_takeover")
        if self.client_fresh:
            parts.append("client_no_context_takeover")
        parts.append(f"server_max_window_bits={self.server_bits}")
        if self.client_bits is not None:
            parts.append(f"client_max_window_bits={self.client_bits}")
        return "; ".join(parts).encode()


class Handshake(NamedTuple):
    """A handshake that is in order."""

    key: bytes | None
    """None in HTTP/2."""
    subprotocols: list[str]
    """Those that the client would speak, the one it likes best first."""
    deflate: DeflateTerms | None
    """What its messages may be compressed with, if they may."""

    def answer(self, subprotocol: str | None) -> list[Field]:
        """Return the fields of the response that accepts it, with `subprotocol` if one was chosen.

        Raises ValueError for one that the client has not named: it would have to close (RFC 6455
        section 4.1).
        """
        fields = []
        if self.key is not None:
            fields.append((b"sec-websocket-accept", generate_accept_token(self.key)))
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:
                offered = ", ".join(self.subprotocols) or "none"
                raise ValueError(
                    f"the client has not offered the subprotocol {subprotocol!r}, but {offered}"
                )
            fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
        if self.deflate is not None:
            fields.append((b"sec-websocket-extensions", self.deflate.answer))
        return fields


def read_handshake(fields: tuple[Field, ...], *, upgrade: bool, compression: bool) -> Handshake:
    """Return what a client wants, from the header fields of its request.

    `upgrade` is a request of HTTP/1.1; with `compression` an offer of permessage-deflate is taken.
    Raises HTTPError: 400, or 426 where HTTP/1.1 is asked for another version (RFC 6455, 4.4).
    """
    versions = _values(fields, b"sec-websocket-version")
    if versions != [VERSION]:
        raise HTTPError(
            426 if upgrade and versions else 400,
            "WebSockets are of version 13 here",
            (("sec-websocket-version", VERSION.decode()), ("upgrade", "websocket")),
        )
    key = _key(_values(fields, b"sec-websocket-key")) if upgrade else None
    deflate = None
    for name, parameters in _extensions(_joined(fields, b"sec-websocket-extensions")):
        if deflate is None and compression and name == "permessage-deflate":
            deflate = _terms(parameters)
    return Handshake(key, _subprotocols(_joined(fields, b"sec-websocket-protocol")), deflate)


def _values(fields: tuple[Field, ...], wanted: bytes) -> list[bytes]:
    return [value for name, value in fields if name == wanted]


def _joined(fields: tuple[Field, ...], wanted: bytes) -> str:
    return ",".join(value.decode("latin-1") for value in _values(fields, wanted))


def _key(values: list[bytes]) -> bytes:
    """Return the key, which is 16 bytes in base64 (RFC 6455 section 4.2.1)."""
    try:
        [value] = values
        if len(base64.b64decode(value, validate=True)) == 16:
            return value
    except (ValueError, binascii.Error):
        pass
    raise HTTPError(400, "Sec-WebSocket-Key is not one key of 16 bytes in base64")


def _subprotocols(text: str) -> list[str]:
    names: list[str] = []
    for part in text.split(","):
        name = part.strip(" \t")
        if not name:  # a list may have empty members (RFC 9110 section 5.6.1)
            continue
        if not _is_word(name):
            raise HTTPError(400, "Sec-WebSocket-Protocol is not a list of tokens")
        if name not in names:
            names.append(name)
    return names


def _extensions(text: str) -> list[tuple[str, Parameters]]:
    """Return the extensions that are offered, each with its parameters, in order."""
    found: list[tuple[str, Parameters]] = []
    text = text.strip(" \t,")
    at = 0
    while at < len(text):
        if empty := _EMPTY.match(text, at):
            at = empty.end()
            continue
        parameters: Parameters = []
        name = _NAME.match(text, at)
        if name is None:
            raise _no_extensions()
        at = name.end()
        while parameter := _PARAMETER.match(text, at):
            at = parameter.end()
            key, value, quoted = parameter.groups()
            if quoted is not None:
                value = re.sub(r"\\(.)", r"\1", quoted)
                if not _is_word(value):
                    raise _no_extensions()
            parameters.append((key, value))
        end = _NEXT.match(text, at)
        if end is None:
            raise _no_extensions()
        at = end.end()
        found.append((name[1], parameters))
    return found


def _no_extensions() -> HTTPError:
    return HTTPError(400, "Sec-WebSocket-Extensions is not a list of extensions")


def _terms(parameters: Parameters) -> DeflateTerms | None:
    """Return the terms of an offer; None for one that must be declined (RFC 7692 section 7.1)."""
    wishes = dict(parameters)
    if len(wishes) < len(parameters):
        return None
    server_bits, client_bits = 15, None
    for name, value in parameters:
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name == "server_max_window_bits":
            if value is None or not _BITS(value):
                return None
            server_bits = int(value)
        elif name == "client_max_window_bits":
            if value is not None and not _BITS(value):
                return None
            client_bits = min(_WINDOW_BITS, 15 if value is None else int(value))
        else:
            return None
    return DeflateTerms(
        min(server_bits, _WINDOW_BITS),
        client_bits,
        "server_no_context_takeover" in wishes,
        "client_no_context_takeover" in wishes,
    )
