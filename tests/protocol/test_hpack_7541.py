"""RFC 7541: the decoder against hand-made blocks, and against another implementation."""

from __future__ import annotations

import hpack
import pytest
from h2.errors import ErrorCodes
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import example, given, settings
from hypothesis import strategies as st

from h2log.errors import SessionError
from h2log.http2.hpack import Decoder, encode
from tests.protocol.frames import integer, literal, string

Fields = list[tuple[bytes, bytes]]

INDEXED = 0x40
NEVER = 0x10


def bits(*codes: tuple[int, int], padding: str) -> bytes:
    """Return Huffman codes and the padding as bytes."""
    text = "".join(f"{code:0{length}b}" for code, length in codes) + padding
    assert len(text) % 8 == 0, len(text) % 8
    return int(text, 2).to_bytes(len(text) // 8, "big")


def coded(symbol: int) -> tuple[int, int]:
    """Return a symbol's Huffman code and its length."""
    return REQUEST_CODES[symbol], REQUEST_CODES_LENGTH[symbol]


def update(size: int) -> bytes:
    """Return a dynamic table size update."""
    return integer(size, 5, 0x20)


def index(number: int) -> bytes:
    """Return an indexed field."""
    return integer(number, 7, 0x80)


def value_of(huffman: bytes) -> bytes:
    """Return a block of one literal whose value is these Huffman bytes."""
    return b"\x00" + string(b"x") + string(huffman, huffman=True)


A = coded(ord("a"))  # 5 bits
EOS = coded(256)

WRONG: dict[str, bytes] = {
    "6.1: index 0": index(0),
    "6.1: the first index beyond an empty table": index(62),
    "6.1: an index far beyond": index(100_000),
    "6.2.1: a name's index beyond the table": integer(62, 6, INDEXED) + string(b"a"),
    "6.2.2: a name's index beyond the table": integer(62, 4) + string(b"a"),
    "6.2.3: a name's index beyond the table": integer(62, 4, NEVER) + string(b"a"),
    "6.3: a size update over what we allow": update(4097),
    "6.3: a size update far over": update(2**20),
    "4.2: a size update after a field": index(2) + update(0),
    "4.2: a size update after a literal": literal(b"a", b"b") + update(4096),
    "5.1: an integer without its end": b"\xff",
    "5.1: an integer without its end, longer": b"\xff\x80\x80",
    "5.1: an endless integer": b"\xff" + b"\x80" * 50 + b"\x01",
    "5.1: an endless integer of zero": b"\x7f" + b"\x80" * 50 + b"\x00" + string(b"a"),
    "5.1: an integer beyond 64 bits": b"\xff" + b"\xff" * 12 + b"\x01",
    "5.1: a string's length beyond 32 bits": b"\x00\x7f\xff\xff\xff\xff\x0f" + b"a" * 20,
    "5.1: a size update beyond 32 bits": b"\x3f\xff\xff\xff\xff\x0f",
    "5.2: no name": b"\x00",
    "5.2: a name cut short": b"\x00\x05abcd",
    "5.2: no value": b"\x00\x01a",
    "5.2: a value cut short": b"\x00\x01a\x02b",
    "5.2: no value for an indexed name": b"\x41",
    "5.2: eight bits of padding": value_of(bits(A, padding="111" + "1" * 8)),
    "5.2: nothing but eight bits of padding": value_of(b"\xff"),
    "5.2: padding of zeros": value_of(bits(A, padding="000")),
    "5.2: padding of ones and a zero": value_of(bits(A, padding="110")),
    "5.2: EOS": value_of(bits(EOS, padding="11")),
    "5.2: EOS inside": value_of(bits(A, EOS, A, padding="")),
    "5.2: a code cut short": value_of(bits(A, padding="101")),
    "5.2: bad padding in a name": b"\x00" + string(bits(A, padding="000"), huffman=True) + b"\x00",
}


@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in WRONG.items()])
@pytest.mark.parametrize("before", [b"", index(2)], ids=["first", "later"])
def test_rfc7541_decoding_errors(block: bytes, before: bytes) -> None:
    """What RFC 7541 calls a decoding error is COMPRESSION_ERROR."""
    if before and block[0] & 0xE0 == 0x20:
        before = update(4096)
    with pytest.raises(SessionError) as caught:
        Decoder().decode(before + block)
    assert caught.value.code == ErrorCodes.COMPRESSION_ERROR


@pytest.mark.parametrize(
    ("number", "prefix", "wire"),
    [(10, 5, b"\x0a"), (1337, 5, b"\x1f\x9a\x0a"), (42, 8, b"\x2a")],
)
def test_rfc7541_c_1_integers(number: int, prefix: int, wire: bytes) -> None:
    """The integers of the standard's examples are what the tests' own encoder writes."""
    assert integer(number, prefix) == wire


def test_rfc7541_c_4_requests() -> None:
    """The three Huffman-coded requests of the standard's example decode, in one table."""
    decoder = Decoder()
    common = [(b":method", b"GET"), (b":scheme", b"http")]
    host = (b":authority", b"www.example.com")
    first = bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")
    assert decoder.decode(first) == [*common, (b":path", b"/"), host]
    second = bytes.fromhex("828684be5886a8eb10649cbf")
    assert decoder.decode(second)[3:] == [host, (b"cache-control", b"no-cache")]
    third = bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf")
    assert decoder.decode(third)[2:] == [
        (b":path", b"/index.html"),
        host,
        (b"custom-key", b"custom-value"),
    ]


def test_rfc7541_a_static_table() -> None:
    """Each index of the static table is the field that another implementation has there."""
    other = hpack.Decoder()
    for number in range(1, 62):
        expected = [(bytes(n), bytes(v)) for n, v in other.decode(index(number), raw=True)]
        assert Decoder().decode(index(number)) == expected


@pytest.mark.parametrize("pattern", [0x00, NEVER])
def test_rfc7541_6_2_2_literals_outside_the_table(pattern: int) -> None:
    """A literal that is not to be indexed enters no table, and says that nothing changed."""
    decoder = Decoder()
    assert decoder.decode(literal(b"a", b"b", pattern)) == [(b"a", b"b")]
    assert not decoder.changed
    with pytest.raises(SessionError):
        decoder.decode(index(62))


def test_rfc7541_2_3_3_newest_entry_first() -> None:
    """The newest entry has the lowest index of the dynamic table, and names are shared."""
    decoder = Decoder()
    decoder.decode(literal(b"a", b"1", INDEXED) + literal(b"b", b"2", INDEXED))
    assert decoder.changed
    assert decoder.decode(index(62) + index(63)) == [(b"b", b"2"), (b"a", b"1")]
    assert not decoder.changed
    assert decoder.decode(integer(63, 4) + string(b"3")) == [(b"a", b"3")]


def test_rfc7541_4_4_eviction() -> None:
    """Entries leave from the oldest when a new one needs the room."""
    decoder = Decoder()
    decoder.decode(update(3 * 34))
    for name in b"abcd":
        decoder.decode(literal(bytes((name,)), b"-", INDEXED))
    assert decoder.decode(index(62) + index(63) + index(64)) == [
        (b"d", b"-"),
        (b"c", b"-"),
        (b"b", b"-"),
    ]
    with pytest.raises(SessionError):
        decoder.decode(index(65))


def test_rfc7541_4_4_entry_larger_than_the_table() -> None:
    """An entry larger than the table empties it, and is no error."""
    decoder = Decoder()
    decoder.decode(literal(b"a", b"1", INDEXED))
    large = literal(b"b", b"x" * 4096, INDEXED)
    assert decoder.decode(large) == [(b"b", b"x" * 4096)]
    with pytest.raises(SessionError):
        decoder.decode(index(62))


def test_rfc7541_4_4_entry_as_large_as_the_table() -> None:
    """An entry of exactly the table's size stays, alone."""
    decoder = Decoder()
    field = (b"b", b"x" * (4096 - 33))
    decoder.decode(literal(b"a", b"1", INDEXED) + literal(*field, INDEXED))
    assert decoder.decode(index(62)) == [field]
    with pytest.raises(SessionError):
        decoder.decode(index(63))


def test_rfc7541_4_4_name_of_an_entry_that_leaves() -> None:
    """A new entry may take its name from the one that it evicts."""
    decoder = Decoder()
    decoder.decode(update(34) + literal(b"a", b"1", INDEXED))
    assert decoder.decode(integer(62, 6, INDEXED) + string(b"2")) == [(b"a", b"2")]
    assert decoder.decode(index(62)) == [(b"a", b"2")]


def test_rfc7541_4_3_size_updates() -> None:
    """An update evicts at once; several may begin a block; it may grow to our limit again."""
    decoder = Decoder()
    decoder.decode(literal(b"a", b"1", INDEXED))
    assert decoder.decode(update(0) + update(4096) + index(2)) == [(b":method", b"GET")]
    assert decoder.changed
    with pytest.raises(SessionError):
        decoder.decode(index(62))
    decoder.decode(literal(b"a", b"1", INDEXED))
    assert decoder.decode(index(62)) == [(b"a", b"1")]


@pytest.mark.parametrize("count", [4, 100])
def test_rfc9113_10_5_1_bound_while_decoding(count: int) -> None:
    """A small block that grows large is cut at the bound, and the table still follows."""
    decoder = Decoder(max_bytes=1024, max_fields=1000)
    big = (b"x", b"y" * 300)
    block = literal(*big, INDEXED) + index(62) * count + literal(b"last", b"1", INDEXED)
    fields = decoder.decode(block)
    assert fields == [big] * 3 and decoder.too_large
    assert decoder.decode(index(62)) == [(b"last", b"1")]
    assert not decoder.too_large


def test_rfc9113_6_5_2_bound_is_exact() -> None:
    """Fields of exactly the bound are accepted: names, values and 32 bytes each."""
    decoder = Decoder(max_bytes=2 * 34)
    block = literal(b"a", b"1") * 2
    assert len(decoder.decode(block)) == 2 and not decoder.too_large
    assert len(decoder.decode(block + literal(b"", b""))) == 2 and decoder.too_large


names = st.sampled_from([b":path", b"cookie", b"x", b"accept", b"x-long-name"]) | st.binary(
    min_size=1, max_size=12
)
values = st.sampled_from([b"", b"/", b"gzip, deflate", b"a" * 200]) | st.binary(max_size=40)
lists = st.lists(st.tuples(names, values, st.booleans()), max_size=12)
sizes = st.none() | st.sampled_from([0, 40, 100, 4096]) | st.integers(0, 4096)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(lists, sizes, st.booleans()), min_size=1, max_size=12))
@example([([(b"x", b"y" * 5000, False)], None, False), ([(b"x", b"y", False)], None, True)])
def test_rfc7541_2_2_tables_are_equal(
    conversation: list[tuple[list[tuple[bytes, bytes, bool]], int | None, bool]],
) -> None:
    """Over a connection, our table is another encoder's, entry by entry, and so are the fields."""
    encoder = hpack.Encoder()
    decoder = Decoder(max_bytes=10**6, max_fields=1000)
    for fields, size, huffman in conversation:
        if size is not None:
            encoder.header_table_size = size
        got = decoder.decode(encoder.encode(fields, huffman=huffman))
        assert got == [(name, value) for name, value, _ in fields]
        entries = [(bytes(n), bytes(v)) for n, v in encoder.header_table.dynamic_entries]
        assert entries == decoder._dynamic[::-1]
        assert decoder._size == sum(len(n) + len(v) + 32 for n, v in entries) <= decoder._limit


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(names.map(bytes.lower), values), max_size=12))
def test_rfc7541_our_encoder(fields: Fields) -> None:
    """What we encode decodes to the same fields, without a table."""
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    got = decoder.decode(encode(fields), raw=True)
    assert [(bytes(name), bytes(value)) for name, value in got] == fields


@settings(max_examples=500, deadline=None)
@given(
    st.binary(max_size=40)
    | st.lists(
        st.sampled_from(
            [
                index(2),
                index(62),
                index(63),
                literal(b"a", b"b", INDEXED),
                literal(b"c", b"d", NEVER),
                integer(62, 6, INDEXED) + string(b"e"),
                update(0),
                update(40),
                update(4096),
                value_of(bits(A, padding="111")),
                b"\xff\x80",
                b"\x00",
            ]
        ),
        max_size=8,
    ).map(b"".join)
)
@example(b"\xff\x80\x00")
def test_rfc7541_same_verdict_as_another_decoder(block: bytes) -> None:
    """Random blocks decode to the same fields as elsewhere, or are an error in both."""
    try:
        theirs = [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(block, raw=True)]
    except (hpack.HPACKError, IndexError, UnicodeDecodeError):
        theirs = None
    if theirs is None:
        with pytest.raises(SessionError) as caught:
            Decoder().decode(block)
        assert caught.value.code == ErrorCodes.COMPRESSION_ERROR
    else:
        assert Decoder().decode(block) == theirs
