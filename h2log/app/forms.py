"""Forms: `application/x-www-form-urlencoded` and `multipart/form-data` (RFC 7578).

A form is parsed as it comes, by python-multipart. Its fields are in memory, its files there or on
the disk; both are bounded: `FormLimits`, the server's `max_body_bytes`, and of all files of one
form together no more than `FORM_MEMORY` in memory.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, QuerystringParser, parse_options_header

from h2log.app.headers import Headers
from h2log.app.uploads import SPOOL_BYTES, Spool, UploadFile
from h2log.errors import HTTPError

__all__ = ["Form", "FormLimits", "parse_form"]

URLENCODED: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"

FORM_MEMORY: Final = 4 * 1024 * 1024
"""Bytes of a form's files that are in memory; further ones go to the disk whatever their size."""
TOGETHER: Final = 4
"""All fields of a form may take so many times `max_field_bytes` (of 1 MiB)."""
MAX_PART_HEADERS: Final = 8
"""Header fields of a part: RFC 7578 knows three (python-multipart 8)."""
MAX_PART_HEADER_BYTES: Final = 4224
"""Bytes of one of them (python-multipart 4,224, Go's net/textproto a line of 4,096)."""

# What is wrong with a form is told to its client, and stands in its line of the log; a line of the
# parser's own for each would let a client fill the application's log.
if logging.getLogger("python_multipart").level == logging.NOTSET:
    logging.getLogger("python_multipart").setLevel(logging.ERROR)

_Value = TypeVar("_Value")


class FormLimits(NamedTuple):
    """The most that a form may have; more is answered with 413 (Content Too Large)."""

    max_fields: int = 1000
    """Fields (Django and Starlette 1,000); of an urlencoded form no more `&` either."""
    max_files: int = 100
    """Files (Django 100)."""
    max_field_bytes: int = 1024 * 1024
    """Bytes of one field, its name included; four times as many for all together."""


class Form(Mapping[str, str | UploadFile]):
    """The fields and files of a form: look-up by name, the first value of several.

    `pairs` are all of them in order. Texts are UTF-8; what is none becomes U+FFFD.
    """

    __slots__ = ("pairs",)

    def __init__(self, pairs: tuple[tuple[str, str | UploadFile], ...]) -> None:
        self.pairs = pairs

    def __getitem__(self, name: str) -> str | UploadFile:
        for key, value in self.pairs:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for key, _ in self.pairs))

    def __len__(self) -> int:
        return len({key for key, _ in self.pairs})

    def getall(self, name: str) -> list[str | UploadFile]:
        """Return every value of `name`, in order; an empty list when there is none."""
        return [value for key, value in self.pairs if key == name]

    def text(self, name: str, default: str = "") -> str:
        """Return the first value of `name` that is a text, `default` when there is none."""
        return next((value for value in self.getall(name) if isinstance(value, str)), default)

    def file(self, name: str) -> UploadFile | None:
        """Return the first file of `name`, None when none was chosen.

        Browsers send a file without a name and content where none was.
        """
        for value in self.getall(name):
            if isinstance(value, UploadFile) and (value.filename or value.size):
                return value
        return None

    @property
    def files(self) -> tuple[UploadFile, ...]:
        """Every file, in order."""
        return tuple(value for _, value in self.pairs if isinstance(value, UploadFile))

    def close_soon(self) -> None:
        """Close all files; see `UploadFile.close_soon`."""
        for file in self.files:
            file.close_soon()

    def __repr__(self) -> str:
        return f"Form({list(self.pairs)!r})"


class _Parser(Protocol):
    def write(self, data: bytes, /) -> int: ...

    def finalize(self) -> None: ...


async def parse_form(
    content_type: str | None, pieces: AsyncIterator[bytes], limits: FormLimits
) -> Form:
    """Parse a form of `content_type` that comes in `pieces`.

    Raises HTTPError 415 for what is no form, 400 for a malformed one, 413 past a limit, 503 when
    the system has no room for its files, and what `pieces` raises; no file is left open then.
    """
    media_type, options = parse_options_header(content_type)
    if media_type == URLENCODED.encode():
        return await _parse_urlencoded(pieces, limits)
    if media_type != MULTIPART.encode():
        raise HTTPError(
            415,
            f"expected {URLENCODED} or {MULTIPART}, got {content_type or 'no content-type'}",
            (("accept", f"{URLENCODED}, {MULTIPART}"),),
        )
    boundary = options.get(b"boundary")
    if not boundary:
        raise HTTPError(400, "the form's content-type has no boundary")
    gathering = _Multipart(limits)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": gathering.part_begin,
                "on_header_field": gathering.header_name,
                "on_header_value": gathering.header_value,
                "on_header_end": gathering.header_end,
                "on_headers_finished": gathering.headers_end,
                "on_part_data": gathering.part_data,
                "on_part_end": gathering.part_end,
                "on_end": gathering.form_end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )
        async for piece in pieces:
            parser.write(piece)
            await gathering.store()
        if not gathering.ended:
            raise HTTPError(400, "the form ends before its last boundary")
    except FormParserError as error:
        gathering.close_soon()
        raise HTTPError(400, f"malformed form: {error}") from None
    except BaseException:
        gathering.close_soon()
        raise
    return Form(tuple(gathering.pairs))


async def _parse_urlencoded(pieces: AsyncIterator[bytes], limits: FormLimits) -> Form:
    fields = _Fields(limits)
    names = bytearray()
    values = bytearray()

    def end() -> None:
        fields.add(_decoded(names), _decoded(values))
        names.clear()
        values.clear()

    def name(data: bytes, start: int, stop: int) -> None:
        fields.grow(stop - start)
        names.extend(data[start:stop])

    def value(data: bytes, start: int, stop: int) -> None:
        fields.grow(stop - start)
        values.extend(data[start:stop])

    parser = QuerystringParser(
        {
            "on_field_start": fields.begin,
            "on_field_name": name,
            "on_field_data": value,
            "on_field_end": end,
        }
    )
    async for piece in pieces:
        fields.separated(piece.count(b"&"))
        parser.write(piece)
    parser.finalize()
    return Form(tuple(fields.pairs))


def _decoded(coded: bytearray) -> str:
    return unquote_to_bytes(bytes(coded.replace(b"+", b" "))).decode("utf-8", "replace")


class _Fields:
    """Counts fields and their bytes. Raises HTTPError 413."""

    def __init__(self, limits: FormLimits) -> None:
        self._limits = limits
        self._count = 0
        self._size = 0  # of the field that is coming
        self._total = 0
        self._separators = 0
        self.pairs: list[tuple[str, str | UploadFile]] = []

    def begin(self) -> None:
        self._count += 1
        self._size = 0
        if self._count > self._limits.max_fields:
            raise self._too_many()

    def separated(self, count: int) -> None:
        """So many separators come: the parser looks at each, also where no field is between two."""
        self._separators += count
        if self._separators > self._limits.max_fields:
            raise self._too_many()

    def _too_many(self) -> HTTPError:
        return HTTPError(413, f"the form has more than {self._limits.max_fields} fields")

    def grow(self, size: int) -> None:
        most = self._limits.max_field_bytes
        self._size += size
        self._total += size
        if self._size > most:
            raise HTTPError(413, f"a field of the form is larger than {most} bytes")
        if self._total > TOGETHER * most:
            raise HTTPError(
                413, f"the fields of the form are larger than {TOGETHER * most} bytes together"
            )

    def add(self, name: str, value: str | UploadFile) -> None:
        self.pairs.append((name, value))


class _Multipart(_Fields):
    """What the parser of a multipart form calls: it gathers, and `store` does what waits."""

    def __init__(self, limits: FormLimits) -> None:
        super().__init__(limits)
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name = ""
        self._text = bytearray()
        self._file: UploadFile | None = None
        self._files: list[UploadFile] = []
        self._spool = Spool()
        self._coming: list[tuple[UploadFile, bytes | None]] = []  # None: the file is complete
        self._memory = 0  # bytes of files that are in memory
        self.ended = False

    def part_begin(self) -> None:
        self._headers = []
        self._file = None

    def header_name(self, data: bytes, start: int, stop: int) -> None:
        self._header_name += data[start:stop]

    def header_value(self, data: bytes, start: int, stop: int) -> None:
        self._header_value += data[start:stop]

    def header_end(self) -> None:
        self._headers.append(
            (bytes(self._header_name).lower(), bytes(self._header_value).strip(b" \t"))
        )
        self._header_name.clear()
        self._header_value.clear()

    def headers_end(self) -> None:
        headers = Headers(self._headers)
        kind, options = parse_options_header(headers.get("content-disposition"))
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise HTTPError(400, "a part of the form has no name in its content-disposition")
        coding = headers.get("content-transfer-encoding", "binary").lower()
        if coding not in ("binary", "7bit", "8bit"):  # deprecated by RFC 7578 section 4.7
            raise HTTPError(400, f"a part of the form has the content-transfer-encoding {coding}")
        self._name = name.decode("utf-8", "replace")
        filename = options.get(b"filename")
        if filename is None:
            self.begin()
            self.grow(len(name))
            return
        if len(self._files) == self._limits.max_files:
            raise HTTPError(413, f"the form has more than {self._limits.max_files} files")
        called = filename.decode("utf-8", "replace")
        self._file = UploadFile(self._name, called, headers, self._spool)
        self._files.append(self._file)

    def part_data(self, data: bytes, start: int, stop: int) -> None:
        if self._file is not None:
            self._coming.append((self._file, data[start:stop]))
            return
        self.grow(stop - start)
        self._text += data[start:stop]

    def part_end(self) -> None:
        if self._file is not None:
            self.add(self._name, self._file)
            self._coming.append((self._file, None))
            return
        self.add(self._name, self._text.decode("utf-8", "replace"))
        self._text.clear()

    def form_end(self) -> None:
        self.ended = True

    async def store(self) -> None:
        """Store what has come of files, and wait for the disk where it goes there."""
        coming, self._coming = self._coming, []
        for file, piece in coming:
            if piece is None:
                await file.complete()
            elif file.in_memory:
                self._memory += len(piece)
                spool = file.size + len(piece) > SPOOL_BYTES or self._memory > FORM_MEMORY
                if spool:
                    self._memory -= file.size + len(piece)
                await file.append(piece, spool=spool)
            else:
                await file.append(piece, spool=True)

    def close_soon(self) -> None:
        """Close every file: the form will not be."""
        for file in self._files:
            file.close_soon()
