"""The PROXY protocol, versions 1 and 2: what a proxy of TCP says of its client, before all else.

See haproxy.org/download/3.0/doc/proxy-protocol.txt; sections are named below. A header stands in
front of everything, TLS too, so it is read from the socket itself, and not a byte more than it.
"""

from __future__ import annotations

import asyncio
import socket
from functools import cache
from typing import Final

from h2log.server.networks import UNIX, plain_address

__all__ = ["MAX_V2", "NoHeaderError", "ProxyError", "header_length", "parse_header", "read_header"]

MAX_V1: Final = 107
"""Bytes of a header of version 1 with its CRLF (section 2.1: a worst case of 107)."""
MAX_V2: Final = 4096
"""Bytes of a header of version 2 after its first 16. The field could say 65535; the addresses of
Unix sockets take 216, a proxy's TLVs (names, ids, a certificate's subject) a few hundred."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_WORD: Final = b"PROXY "
_HEAD: Final = 16
_CRC: Final = 0x03  # PP2_TYPE_CRC32C, section 2.2.4
# Family and transport, section 2.2: the bytes of the address block, and of one address in it.
_BLOCKS: Final = {0x1: (12, 4), 0x2: (36, 16), 0x3: (216, 108)}
_V1_FAMILIES: Final = {b"TCP4": "ipv4", b"TCP6": "ipv6"}


class ProxyError(Exception):
    """There is no header, or a wrong one; the text says what is wrong."""


class NoHeaderError(ProxyError):
    """What came is something else: the proxy does not send headers."""

    def __init__(self) -> None:
        super().__init__("no PROXY header")


def header_length(data: bytes) -> int | None:
    """Return the length of the header that `data` begins with, None when more has to come first.

    Raises ProxyError as soon as it cannot become a header.
    """
    if data[:1] == _WORD[:1]:
        if data[: len(_WORD)] != _WORD[: len(data)]:
            raise NoHeaderError
        end = data.find(b"\n", 0, MAX_V1)
        if end > 0:
            if data[end - 1 : end] != b"\r":
                raise ProxyError("a line of version 1 does not end with CR LF")
            return end + 1
        if len(data) >= MAX_V1:
            raise ProxyError(f"a line of version 1 is longer than {MAX_V1} bytes")
        return None
    if data[: len(_SIGNATURE)] != _SIGNATURE[: len(data)]:
        raise NoHeaderError
    if len(data) > 12 and data[12] >> 4 != 2:
        raise ProxyError(f"version {data[12] >> 4} of the PROXY protocol")
    if len(data) < _HEAD:
        return None
    length = int.from_bytes(data[14:16], "big")
    if length > MAX_V2:
        raise ProxyError(f"a header of {length} bytes, more than {MAX_V2}")
    return _HEAD + length


def parse_header(header: bytes) -> tuple[str, int] | None:
    """Return the client's address and port that a whole header tells, None when it tells none.

    It tells none for the proxy's own connections (LOCAL, health checks) and for a client that the
    proxy does not know (UNKNOWN, UNSPEC): the real peer is the client then. A Unix socket's client
    is `unix:`, port 0. Raises ProxyError for a wrong header, also one whose checksum is not right.
    """
    return _parse_v1(header) if header[:1] == b"P" else _parse_v2(header)


def _parse_v1(header: bytes) -> tuple[str, int] | None:
    """Read a line (section 2.1): one space between words, numbers without zeros in front."""
    words = header[:-2].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None  # whatever follows is to be ignored
    family = _V1_FAMILIES.get(words[1])
    if family is None or len(words) != 6:
        raise ProxyError("a line of version 1 that is none of TCP4, TCP6 and UNKNOWN")
    addresses = [_v1_address(word, family) for word in words[2:4]]
    ports = [_v1_port(word) for word in words[4:6]]
    return addresses[0], ports[0]


def _v1_address(word: bytes, family: str) -> str:
    text = word.decode("latin-1")
    address = plain_address(text)
    if address is None or (":" in text) is not (family == "ipv6"):
        raise ProxyError(f"a line of version 1 whose address is no {family} address")
    return address


def _v1_port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[:1] == b"0" and word != b"0"):
        raise ProxyError("a line of version 1 whose port is no number")
    port = int(word)
    if port > 65535:
        raise ProxyError("a line of version 1 whose port is beyond 65535")
    return port


def _parse_v2(header: bytes) -> tuple[str, int] | None:
    """Read the binary form (section 2.2)."""
    command = header[12] & 0x0F
    if command > 1:
        raise ProxyError(f"command {command} of version 2")
    family, transport = header[13] >> 4, header[13] & 0x0F
    if command == 0:
        return None  # LOCAL: what follows is to be skipped, whatever it is
    if family > 3 or transport > 2:
        raise ProxyError(f"family and transport {header[13]:#04x} of version 2")
    size, width = _BLOCKS.get(family, (0, 0))
    block = header[_HEAD : _HEAD + size]
    if len(block) < size:
        raise ProxyError(f"addresses of {len(block)} bytes where there are {size}")
    if not family or not transport:
        return None  # UNSPEC: nothing but its length is known of what follows
    _check_fields(header, _HEAD + size)
    if family == 3:
        return UNIX, 0
    packed = block[:width]
    text = socket.inet_ntop(socket.AF_INET if family == 1 else socket.AF_INET6, packed)
    return plain_address(text) or text, int.from_bytes(block[2 * width : 2 * width + 2], "big")


def _check_fields(header: bytes, at: int) -> None:
    """Walk the TLVs from `at` (section 2.2.4): none goes beyond the end; a checksum is right."""
    end = len(header)
    while at < end:
        if at + 3 > end:
            raise ProxyError("a field of version 2 that is cut off")
        start = at + 3
        size = int.from_bytes(header[at + 1 : start], "big")
        if start + size > end:
            raise ProxyError("a field of version 2 that is longer than the header")
        if header[at] == _CRC:
            if size != 4:
                raise ProxyError("a checksum that is not 4 bytes")
            given = int.from_bytes(header[start : start + 4], "big")
            if _crc32c(header[:start] + bytes(4) + header[start + 4 :]) != given:
                raise ProxyError("the checksum is wrong")
        at = start + size


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


def _crc32c(data: bytes) -> int:
    """Return the CRC32c of `data` (RFC 4960 appendix B)."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


async def read_header(sock: socket.socket) -> tuple[str, int] | None:
    """Read a header from a non-blocking socket, and return what `parse_header` does.

    Nothing behind it is taken from the socket. What may belong to it is first looked at and then
    taken, so waiting for the rest never finds the same bytes again. Raises ProxyError, also when
    the peer closes, and OSError. Bounded by the caller's timeout.
    """
    seen = b""
    while True:
        length = header_length(seen)
        if length is not None and length <= len(seen):
            return parse_header(seen)
        piece = await _look(sock, (MAX_V1 if length is None else length) - len(seen))
        if not piece:
            raise ProxyError("closed inside the header" if seen else "closed before a header")
        length = header_length(seen + piece)
        if length is not None:
            piece = piece[: length - len(seen)]
        seen += sock.recv(len(piece))


async def _look(sock: socket.socket, size: int) -> bytes:
    """Return up to `size` bytes that have come, and leave them there; wait for the first."""
    while True:
        try:
            return sock.recv(size, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            pass
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        number = sock.fileno()
        loop.add_reader(number, _set, readable)
        try:
            await readable
        finally:
            loop.remove_reader(number)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
