"""The handshake's fields, whatever a client makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.errors import HTTPError
from h2log.server.websocket_handshake import DeflateTerms, Handshake, read_handshake

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def read(*more: tuple[bytes, bytes], upgrade: bool = True, compression: bool = True) -> Handshake:
    """Read a handshake with these fields besides what it must have."""
    fields = [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", KEY), *more]
    return read_handshake(tuple(fields), upgrade=upgrade, compression=compression)


def test_rfc6455_1_3_example() -> None:
    """The key of the specification's example has the accept of the specification's example."""
    assert read().answer(None) == [(b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")]


def test_http2_has_no_key() -> None:
    """RFC 8441 section 5.1: key and accept have no use there."""
    handshake = read(upgrade=False)
    assert handshake.key is None and handshake.answer(None) == []


def test_offers_in_several_fields() -> None:
    """Fields of one name are one list (RFC 6455 section 9.1)."""
    offered = read(
        (b"sec-websocket-extensions", b"x-one;a;b=1"),
        (b"sec-websocket-extensions", b" , permessage-deflate ; client_max_window_bits = 10,"),
    )
    assert offered.deflate == DeflateTerms(12, 10, False, False)


def test_nothing_is_taken_without_compression() -> None:
    """What is off is declined, and still has to be well-formed."""
    assert read((b"sec-websocket-extensions", b"permessage-deflate"), compression=False)[2] is None
    with pytest.raises(HTTPError):
        read((b"sec-websocket-extensions", b"permessage deflate"), compression=False)


def test_answers_are_in_order() -> None:
    """The chosen subprotocol and the terms are told; one that was not offered is refused."""
    handshake = read(
        (b"sec-websocket-protocol", b"a, b"), (b"sec-websocket-extensions", b"permessage-deflate")
    )
    names = [name for name, _ in handshake.answer("b")]
    assert names == [
        b"sec-websocket-accept",
        b"sec-websocket-protocol",
        b"sec-websocket-extensions",
    ]
    with pytest.raises(ValueError, match="'c', but a, b"):
        handshake.answer("c")
    with pytest.raises(ValueError, match="'c', but none"):
        read().answer("c")


PIECES = [
    "permessage-deflate",
    "server_max_window_bits",
    "client_no_context_takeover",
    "x",
    ";",
    ",",
    "=",
    '"',
    "\\",
    "9",
    " ",
    "\t",
    "ä",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_extensions(text: str) -> None:
    """Whatever is offered, it is read or refused with 400."""
    value = text.encode("latin-1")
    for name in (b"sec-websocket-extensions", b"sec-websocket-protocol"):
        status, terms = 0, None
        try:
            terms = read((name, value)).deflate
        except HTTPError as error:
            status = error.status
        assert status in (0, 400)
        assert terms is None or 8 <= terms.server_bits <= 12


def test_a_long_list_is_read_once() -> None:
    """What fills a whole header section takes no more time than it has bytes."""
    value = b", ".join([b'x;a="b"'] * 3000)
    assert read((b"sec-websocket-extensions", value)).deflate is None
    assert read((b"sec-websocket-extensions", b"," * 30_000)).deflate is None
