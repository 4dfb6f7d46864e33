"""Header fields and query parameters as a handler meets them: ordered, repeatable, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl

__all__ = ["Headers", "Query"]


class Headers(Mapping[str, str]):
    """The fields of a message: look-up by name in any case, the first value of several.

    `fields` are names in lower case and values, as bytes; texts are latin-1 (RFC 9110 section
    5.5). `getall` gives every value of a name, `raw` the fields themselves.
    """

    __slots__ = ("raw",)

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self.raw = tuple(fields)

    def __getitem__(self, name: str) -> str:
        wanted = name.lower().encode("latin-1", "replace")
        for key, value in self.raw:
            if key == wanted:
                return value.decode("latin-1")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.decode("latin-1") for key, _ in self.raw))

    def __len__(self) -> int:
        return len({key for key, _ in self.raw})

    def getall(self, name: str) -> list[str]:
        """Return every value of `name`, in order; an empty list when there is none."""
        wanted = name.lower().encode("latin-1", "replace")
        return [value.decode("latin-1") for key, value in self.raw if key == wanted]

    def joined(self, name: str) -> str | None:
        """Return the values of `name` as one list (RFC 9110 section 5.3), or None."""
        values = self.getall(name)
        return ", ".join(values) if values else None

    def __repr__(self) -> str:
        return f"Headers({list(self.raw)!r})"


class Query(Mapping[str, str]):
    """The parameters of a query: look-up by name, the first value of several.

    `pairs` are all of them in order. Percent coding is undone as UTF-8, a `+` is a space; what is
    no UTF-8 becomes U+FFFD.
    """

    __slots__ = ("pairs",)

    def __init__(self, text: str) -> None:
        raw = text.encode("latin-1", "replace").decode("utf-8", "replace")
        self.pairs: tuple[tuple[str, str], ...] = tuple(parse_qsl(raw, keep_blank_values=True))

    def __getitem__(self, name: str) -> str:
        for key, value in self.pairs:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for key, _ in self.pairs))

    def __len__(self) -> int:
        return len({key for key, _ in self.pairs})

    def getall(self, name: str) -> list[str]:
        """Return every value of `name`, in order; an empty list when there is none."""
        return [value for key, value in self.pairs if key == name]

    def __repr__(self) -> str:
        return f"Query({list(self.pairs)!r})"
