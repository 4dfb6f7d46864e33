"""Forms as clients send them, and what the parser makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from h2log.app.forms import Form, FormLimits, parse_form
from h2log.errors import HTTPError

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=XX"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield content as it comes."""
    for part in parts:
        yield part


def cut(data: bytes, size: int) -> list[bytes]:
    """Return `data` in pieces of `size`."""
    return [data[at : at + size] for at in range(0, len(data), size)]


async def parse(
    content_type: str | None, data: bytes | Iterable[bytes], limits: FormLimits | None = None
) -> Form:
    """Parse a form that comes in one piece, or in those given."""
    parts = [data] if isinstance(data, bytes) else data
    return await parse_form(content_type, pieces(*parts), limits or FormLimits())


def part(disposition: str, content: bytes, *fields: str) -> bytes:
    """Return a part of a multipart form, behind its boundary."""
    lines = [f"content-disposition: {disposition}", *fields]
    return b"--XX\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


def field(name: str, value: bytes) -> bytes:
    return part(f'form-data; name="{name}"', value)


def file(name: str, filename: str, content: bytes, *fields: str) -> bytes:
    return part(f'form-data; name="{name}"; filename="{filename}"', content, *fields)


END = b"--XX--\r\n"


async def refused(
    content_type: str | None, data: bytes | Iterable[bytes], limits: FormLimits | None = None
) -> HTTPError:
    """Return the error that a form is."""
    with pytest.raises(HTTPError) as caught:
        await parse(content_type, data, limits)
    return caught.value
