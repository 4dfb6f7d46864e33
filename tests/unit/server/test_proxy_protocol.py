"""PROXY headers, byte by byte: what is one, what is none, and where it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.server.proxy_protocol import (
    MAX_V2,
    ProxyError,
    header_length,
    parse_header,
    read_header,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")


def v2(command: int, family: int, payload: bytes, length: int | None = None) -> bytes:
    """Return a header of version 2; `length` is what it says of its payload's."""
    size = len(payload) if length is None else length
    return SIGNATURE + bytes((0x20 | command, family)) + size.to_bytes(2, "big") + payload


def field(kind: int, value: bytes) -> bytes:
    """Return a TLV."""
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def whole(header: bytes) -> tuple[str, int] | None:
    """Return what a header tells that is whole, and has nothing behind it."""
    assert header_length(header) == len(header)
    return parse_header(header)


HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", ("192.0.2.1", 4711)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n", ("1.2.3.4", 0)),
    (b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", ("2001:db8::1", 1)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ("192.0.2.1", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 whatever it says\r\n", None),
    (v2(1, 0x11, V4), ("192.0.2.1", 4711)),
    (v2(1, 0x12, V4), ("192.0.2.1", 4711)),
    (v2(1, 0x11, V4 + field(0x04, b"") + field(0xEE, b"x" * 300)), ("192.0.2.1", 4711)),
    (v2(1, 0x21, bytes(15) + b"\1" + bytes(16) + b"\0\7\0\1"), ("::1", 7)),
    (v2(1, 0x31, b"/run/a".ljust(108, b"\0") + bytes(108)), ("unix:", 0)),
    (v2(1, 0x00, b""), None),
    (v2(1, 0x00, b"anything"), None),
    (v2(0, 0x00, b""), None),
    (v2(0, 0x11, V4), None),
    (v2(0, 0x11, b"short"), None),
    (v2(0, 0xFF, b"what is this"), None),
]


@pytest.mark.parametrize(("header", "told"), HEADERS)
def test_what_a_header_tells(header: bytes, told: tuple[str, int] | None) -> None:
    """The client's address and port; nothing for LOCAL, UNKNOWN and UNSPEC."""
    assert whole(header) == told


@pytest.mark.parametrize(("header", "told"), HEADERS)
def test_no_byte_before_the_last_makes_it_whole(
    header: bytes, told: tuple[str, int] | None
) -> None:
    """Every beginning of a header wants more, and what stands behind one is not part of it."""
    for size in range(len(header)):
        length = header_length(header[:size])
        assert length is None or length == len(header)
    assert header_length(header + b"GET / HTTP/1.1\r\n") == len(header)


WRONG = [
    (b"GET / HTTP/1.1\r\n", "no PROXY header"),
    (b"\x16\x03\x01\x02\x00\x01\x00", "no PROXY header"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no PROXY header"),
    (b"PROXY\tTCP4", "no PROXY header"),
    (b"\r\n\r\n\0\r\nQUIZ\n", "no PROXY header"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "CR LF"),
    (b"PROXY UNKNOWN " + b"x" * 100, "longer than 107 bytes"),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "longer than 107 bytes"),
    (b"PROXY \r\n", "none of TCP4"),
    (b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n", "none of TCP4"),
    (b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n", "none of TCP4"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "none of TCP4"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", "none of TCP4"),
    (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", "none of TCP4"),
    (b"PROXY TCP4 1.2.3.4 5.6.7 1 2\r\n", "no ipv4 address"),
    (b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n", "no ipv4 address"),
    (b"PROXY TCP4 ::1 ::1 1 2\r\n", "no ipv4 address"),
    (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "no ipv6 address"),
    (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "no ipv6 address"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", "port is no number"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", "port is no number"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 \xb2 2\r\n", "port is no number"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", "beyond 65535"),
    (SIGNATURE + b"\x11\x11\0\x0c" + V4, "version 1 of"),
    (v2(2, 0x11, V4), "command 2"),
    (v2(1, 0x41, V4), "family and transport 0x41"),
    (v2(1, 0x13, V4), "family and transport 0x13"),
    (v2(1, 0x11, V4[:-1]), "addresses of 11 bytes where there are 12"),
    (v2(1, 0x21, V4), "addresses of 12 bytes where there are 36"),
    (v2(1, 0x31, V4), "addresses of 12 bytes where there are 216"),
    (v2(1, 0x11, V4, MAX_V2 + 1), "4097 bytes, more than 4096"),
    (v2(0, 0x00, b"", 65535), "65535 bytes, more than 4096"),
    (v2(1, 0x11, V4 + b"\x04\x00"), "cut off"),
    (v2(1, 0x11, V4 + b"\x04\x00\x05abcd"), "longer than the header"),
    (v2(1, 0x11, V4 + field(3, b"abcd")), "checksum is wrong"),
    (v2(1, 0x11, V4 + field(3, b"abc")), "checksum that is not 4"),
]


@pytest.mark.parametrize(("data", "complaint"), WRONG)
def test_what_is_no_header(data: bytes, complaint: str) -> None:
    """It is refused as soon as it can be known, and the reason is told."""
    with pytest.raises(ProxyError, match=complaint):
        parse_header(data[: header_length(data)])


def test_the_checksum_is_verified() -> None:
    """CRC32c over the whole header, with zeros in its own place (section 2.2.4)."""
    # The value for nine ASCII digits that every description of CRC32c names is 0xe3069283.
    from h2log.server.proxy_protocol import _crc32c

    assert _crc32c(b"123456789") == 0xE3069283
    empty = v2(1, 0x11, V4 + field(3, bytes(4)) + field(5, b"id"))
    crc = _crc32c(empty).to_bytes(4, "big")
    header = v2(1, 0x11, V4 + field(3, crc) + field(5, b"id"))
    assert whole(header) == ("192.0.2.1", 4711)
    with pytest.raises(ProxyError, match="checksum is wrong"):
        whole(header[:-1] + b"D")


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE]))
def test_any_bytes_are_a_header_or_none(data: bytes, start: bytes) -> None:
    """Nothing but ProxyError comes out, and no header is longer than it may be."""
    try:
        length = header_length(start + data)
        if length is None or length > len(start + data):
            assert len(start + data) < 16 + MAX_V2
            return
        told = parse_header((start + data)[:length])
    except ProxyError:
        return
    if told is not None and told[0] != "unix:":
        assert str(ipaddress.ip_address(told[0])) == told[0]
        assert 0 <= told[1] <= 65535


@given(st.ip_addresses(), st.integers(0, 65535), st.lists(st.binary(max_size=20), max_size=4))
def test_every_address_comes_through(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, values: list[bytes]
) -> None:
    """Both versions tell the address and the port that were put in."""
    number = 4 if address.version == 4 else 6
    line = f"PROXY TCP{number} {address} {address} {port} 1\r\n".encode()
    mapped = getattr(address, "ipv4_mapped", None)
    usual = (str(mapped or address), port)
    assert whole(line) == usual
    block = address.packed * 2 + port.to_bytes(2, "big") * 2
    fields = b"".join(field(0xE0, value) for value in values)
    assert whole(v2(1, 0x11 if number == 4 else 0x21, block + fields)) == usual


# From a socket


@pytest.mark.parametrize(
    "header", [HEADERS[0][0], HEADERS[5][0], v2(1, 0x11, V4 + field(1, b"h2"))]
)
async def test_a_header_in_any_two_pieces(header: bytes) -> None:
    """It is read wherever it is cut, and not a byte of what stands behind it."""
    told = parse_header(header)
    for cut in range(1, len(header) + 1):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(header[:cut])
            reading = asyncio.ensure_future(read_header(ours))
            await asyncio.sleep(0)  # it has begun, and waits for the rest
            theirs.send(header[cut:] + b"\x16\x03\x01")
            assert await reading == told
            assert ours.recv(100) == b"\x16\x03\x01"


async def test_a_header_byte_by_byte() -> None:
    """Waiting for a byte is waiting: the reader runs once for each that comes."""
    header = v2(1, 0x21, bytes(32) + b"\0\7\0\1" + field(2, b"localhost"))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reading = asyncio.ensure_future(read_header(ours))
        for byte in header:
            theirs.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert await reading == ("::", 7)


@pytest.mark.parametrize(
    ("data", "complaint"), [(b"", "before a header"), (HEADERS[0][0][:20], "inside the header")]
)
async def test_a_peer_that_closes(data: bytes, complaint: str) -> None:
    """A connection that ends has no header."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(data)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ProxyError, match=complaint):
            await read_header(ours)


async def test_a_reader_that_is_given_up_leaves_nothing() -> None:
    """After a timeout nobody listens on the descriptor any more, and what came is still there."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await read_header(ours)
        assert asyncio.get_running_loop().remove_reader(ours.fileno()) is False
