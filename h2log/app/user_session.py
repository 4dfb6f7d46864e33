"""A user session as a handler meets it: a mapping that knows what was changed in it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, Final, NoReturn

import msgspec

from h2log.app.user_session_secret import new_token
from h2log.app.user_session_store import StoredSession, StoreError

__all__ = ["MAX_BYTES", "Changes", "UserSession"]

MAX_BYTES: Final = 64 * 1024
"""Bytes of names and encoded values that one user session may have: it is read with every request
that has its cookie. (A cookie that holds the data itself has 4 KiB, RFC 6265 section 6.1.)"""

_decode: Final = msgspec.msgpack.Decoder().decode


class Changes(msgspec.Struct, frozen=True):
    """What a request did to its user session; who keeps it writes that to the store.

    `origin` is the id that the data came with, None for what is new; `key` the id from now on, None
    when there is none; `values` are all encoded values, `changed` and `removed` what is different
    from what was loaded. `destroyed` says that the data of `origin` go; the rest was put in after.
    """

    origin: str | None
    key: str | None
    values: dict[str, bytes]
    changed: dict[str, bytes]
    removed: frozenset[str]
    destroyed: bool


class UserSession(MutableMapping[str, Any]):
    """The values of one user session, by name: `request.user_session`.

    A value is what msgpack can say: None, bool, int of 64 bits, float, str, bytes, a time with its
    zone, and lists and dictionaries of them; tuples and sets become lists, dataclasses and Structs
    dictionaries, at once. What is put in is copied; what is taken out may be changed in place, and
    is kept as it is when the handler is done. There is nothing to save: the middleware does, if
    anything was changed, before the response is sent; after that a change raises RuntimeError.
    Putting in a value of another kind raises TypeError, more than `MAX_BYTES` in all ValueError.

    While the store cannot be reached every use raises `StoreError`, which is the response then.
    """

    def __init__(
        self,
        key: str | None = None,
        stored: StoredSession | None = None,
        *,
        failure: StoreError | None = None,
    ) -> None:
        self._key = key
        self._origin = key
        self._created = None if stored is None else stored.created
        self._loaded = {} if stored is None else stored.values
        self._failure = failure
        self._encoded = dict(self._loaded)
        self._size = _size(self._encoded)
        self._values: dict[str, Any] = {}  # the decoded ones of `_encoded`
        self._touched: set[str] = set()  # names that were set or deleted
        self._destroyed = False
        self._accessed = False
        self._sealed = False

    # What it is

    @property
    def id(self) -> str | None:
        """Its id, 43 characters; None while there is nothing to keep.

        It is no secret by itself: the cookie has it signed. A new one is there as soon as
        something is put in.
        """
        self._use()
        return self._key

    @property
    def created(self) -> float | None:
        """When it began, in epoch seconds; None for one that this request begins."""
        self._use()
        return self._created

    @property
    def modified(self) -> bool:
        """Whether this request changed anything that is to be kept."""
        if self._failure is not None:
            return False
        found = self.changes()
        moved = found.origin is not None and found.key != found.origin
        return bool(found.changed or found.removed or found.destroyed or moved)

    @property
    def accessed(self) -> bool:
        """Whether this request looked at it: its response is the user's own then."""
        return self._accessed

    # What can be done with it

    def regenerate(self) -> None:
        """Give it a new id and keep its values; the old id is worth nothing any more.

        To be called whenever the user's rights change, above all at login: an id that somebody
        planted before it then leads nowhere (session fixation, OWASP ASVS 7.2.4). It began when
        it began: an absolute lifetime is not prolonged.
        """
        self._change()
        if self._key is not None:
            self._key = new_token()

    def destroy(self) -> None:
        """Delete it, here and in the store, and have the client drop its cookie.

        It is empty afterwards; what is put in then begins a new one, with another id.
        """
        self._change()
        self._destroyed = self._origin is not None
        self._created = None
        self._key = None
        self._encoded = {}
        self._loaded = {}
        self._size = 0
        self._values.clear()
        self._touched.clear()

    def clear(self) -> None:
        """Take every value out; the id stays."""
        self._change()
        self._touched.update(self._encoded)
        self._encoded.clear()
        self._values.clear()
        self._size = 0

    # A mapping

    def __getitem__(self, name: str) -> Any:
        self._use()
        if name not in self._values:
            self._values[name] = _decode(self._encoded[name])
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._change()
        if not isinstance(name, str):
            raise TypeError(f"a value of a user session has a text as its name, not {name!r}")
        encoded, copy = _encode(name, value)
        before = self._encoded.get(name)
        size = self._size + _cost(name, encoded) - (0 if before is None else _cost(name, before))
        _check_size(name, size)
        self._size = size
        self._encoded[name] = encoded
        self._values[name] = copy
        self._touched.add(name)
        if self._key is None:
            self._key = new_token()

    def __delitem__(self, name: str) -> None:
        self._change()
        encoded = self._encoded.pop(name)
        self._size -= _cost(name, encoded)
        self._values.pop(name, None)
        self._touched.add(name)

    def __contains__(self, name: object) -> bool:
        self._use()
        return name in self._encoded

    def __iter__(self) -> Iterator[str]:
        self._use()
        return iter(self._encoded)

    def __len__(self) -> int:
        self._use()
        return len(self._encoded)

    def __repr__(self) -> str:
        # Neither values nor the id: it may stand in a log.
        if self._failure is not None:
            return "<UserSession, not available>"
        return f"<UserSession of {len(self._encoded)} values>"

    def _use(self) -> None:
        self._accessed = True
        if self._failure is not None:
            raise self._failure

    def _change(self) -> None:
        self._use()
        if self._sealed:
            raise RuntimeError(
                "the response has begun: a user session can be changed only before the handler "
                "returns, not while its content is streamed nor in background work"
            )

    # For the middleware

    @property
    def available(self) -> bool:
        """Whether the store could be reached."""
        return self._failure is None

    @property
    def destroyed(self) -> str | None:
        """The id whose data are to be deleted, None when there is none."""
        return self._origin if self._destroyed else None

    def seal(self) -> None:
        """Let nothing be changed any more: what follows would not be kept."""
        self._sealed = True

    def changes(self) -> Changes:
        """Return what is to be kept. Raises TypeError and ValueError as putting in does.

        That is what was put in, and what was changed in place since it was taken out.
        """
        changed = {name: self._encoded[name] for name in self._touched if name in self._encoded}
        for name, value in self._values.items():
            encoded, _ = _encode(name, value)
            if encoded != self._encoded[name]:
                changed[name] = encoded
        values = {**self._encoded, **changed}
        _check_size("", _size(values))
        removed = frozenset(self._touched.intersection(self._loaded).difference(self._encoded))
        return Changes(
            self._origin,
            self._key,
            values,
            changed,
            removed,
            self._destroyed,
        )


def _cost(name: str, encoded: bytes) -> int:
    return len(name.encode()) + len(encoded)


def _size(values: dict[str, bytes]) -> int:
    return sum(_cost(name, value) for name, value in values.items())


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        what = f"with {name!r} " if name else ""
        raise ValueError(
            f"the user session {what}would take {size} bytes, more than {MAX_BYTES}: keep what is "
            "large elsewhere, and its key here"
        )


def _encode(name: str, value: Any) -> tuple[bytes, Any]:
    """Return a value as msgpack, and what will come back. Raises TypeError naming the value."""
    try:
        name.encode()
        encoded = msgspec.msgpack.encode(value)
        return encoded, _decode(encoded)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        _refuse(name, value, error)


def _refuse(name: str, value: Any, error: Exception) -> NoReturn:
    raise TypeError(
        f"the user session cannot keep {name!r}, {type(value).__name__}: {error}; it keeps None, "
        "bool, int of 64 bits, float, str, bytes, datetime, and lists and dictionaries of them"
    ) from None
