"""What is secret in a line, masked: keys of a query by their names, and header fields by theirs.

    Redaction().url("/login?user=jo&token=4711")  ->  "/login?user=jo&token=REDACTED"

A value that is secret stands as `MASK`; its name stays, as OpenTelemetry's conventions ask. Names
are compared after percent-decoding, without case and punctuation: `%74oken`, `accessToken` and
`user[password]` are what they are to the application that reads them.

In a URL these are looked for, wherever an application could look for them:

* `name=value` in the query, between `&` or `;`, any number of times; in the fragment (OAuth's
  implicit grant answers there) and in parameters of the path (`;jsessionid=…`);
* the same inside of a value that is a URL itself, also percent-encoded
  (`next=%2Fcallback%3Ftoken%3D…`): from there on the whole value is masked;
* user and password before a host (`https://jo:secret@example.org/`), in such a value too.

In doubt more is masked: a secret value goes on to the next `&`, or the next `;name=` where there
is no `&`. A name without a value has nothing to mask.

A header field that is secret is masked as a whole: of cookies not even the names are shown.

The record keeps what was sent. That is what expressions of `skip` look at, and what an
application's own tokens and formats are given: what they show of it, they show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from h2log.config.secret_names import HEADERS, QUERY
from h2log.errors import UsageError

__all__ = ["DEFAULT", "MASK", "NOTHING", "Masker", "Redaction", "redacted_target"]

MASK: Final = "REDACTED"
"""What stands for a secret value: OpenTelemetry's word, and Caddy's."""

Masker = Callable[[str], str]
"""Returns a text with what is secret in it masked; the same object when nothing is."""

_MAX_KNOWN: Final = 4096
_MAX_KNOWN_LENGTH: Final = 64
_DECODINGS: Final = 3
"""How often a name is decoded: a proxy and an application may both do it."""

# What is encoded may be so any number of times: %3D, %253D …
_DELIMITER = re.compile("[?;#&/=]|%(?:25)*(?:3f|3b|23|26|2f|3d)", re.IGNORECASE)
# The look behind keeps it from beginning anew at each character of a long text without an equals.
_PLAIN_NAMES = re.compile("(?<![^?;#&/=])([^?;#&/=]*)=")
# Where a new pair begins although the separator is no `&`.
_NEXT_PAIR = re.compile(";(?=[^;=]*=)")
_QUERY = re.compile("[?#]")
_PARTS = re.compile(r"[\[\].?;#&/]")

# The first form is the text's own authority; the others stand in a value, and end with it.
_USER = re.compile(r"(^(?:[a-z][a-z0-9+.-]*:)?//)([^/?#]+)@|(://)([^/?#&;\s]+)@", re.IGNORECASE)
_ENCODED_USER = re.compile(
    "(%(?:25)*3a(?:%(?:25)*2f){2})((?:(?!%(?:25)*(?:2f|3f|23))[^/?#&;])+)(?=@|%(?:25)*40)",
    re.IGNORECASE,
)
_COLON = re.compile("%(?:25)*3a|:", re.IGNORECASE)

# What is a URL, or has one, as a whole; of other fields, what looks like one.
_URL_FIELDS: Final = frozenset(
    (
        *("referer", "referrer", "origin", "destination", "location", "content-location"),
        *("link", "refresh"),
    )
)


def _plain(name: str) -> str:
    """Return what counts of a name."""
    return "".join([character for character in name.casefold() if character.isalnum()])


class Redaction:
    """Which names are secret: keys of a `query`, and `headers` of requests and responses.

    Each list replaces the default; an empty one switches its half off. With an empty `query` URLs
    stay as they are altogether, users and passwords in them too. Raises UsageError for a name in
    which nothing is left to compare.
    """

    __slots__ = ("_headers", "_known", "_query", "headers", "query")

    def __init__(self, query: Iterable[str] = QUERY, headers: Iterable[str] = HEADERS) -> None:
        self.query = _names("query", query)
        self.headers = _names("headers", headers)
        self._query = frozenset(map(_plain, self.query))
        self._headers = frozenset(map(_plain, self.headers))
        self._known: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"<Redaction of {len(self.query)} query keys and {len(self.headers)} header fields>"

    def hides_key(self, name: str) -> bool:
        """Return whether `name`, as it stands in a URL, is that of a secret."""
        known = self._known
        found = known.get(name)
        if found is None:
            found = self._decide(name)
            if len(name) <= _MAX_KNOWN_LENGTH:
                if len(known) >= _MAX_KNOWN:
                    known.clear()
                known[name] = found
        return found

    def hides_header(self, name: str) -> bool:
        """Return whether the header field `name` is secret."""
        return _plain(name) in self._headers

    def url(self, text: str) -> str:
        """Return a URL or a request target with what is secret in it masked."""
        if not self._query or not ("=" in text or "%" in text or "@" in text):
            return text
        if "@" in text or ("%" in text and ("3D" in text or "3d" in text or "40" in text)):
            return self._url(text)
        # No encoded pair and no user can be in it: most have only names to look at.
        begin = max(0, text.find("?", 0, text.find("=")))  # names without a value hide nothing
        known = self._known
        for name in _PLAIN_NAMES.findall(text, begin):
            if known.get(name, True) and self.hides_key(name):
                return self._url(text)
        return text

    def authority(self, text: str) -> str:
        """Return a host with its port, and a user before it masked (RFC 9110, section 4.2.4)."""
        if "@" in text and self._query:
            user, at, host = text.rpartition("@")
            return f"{_masked_user(user)}{at}{host}" if user else text
        return text

    def field(self, name: str) -> Masker:
        """Return what masks the value of the header field `name`.

        One that is not secret as a whole may be a URL, or have one, in which something is.
        """
        name = name.lower()
        if self.hides_header(name):
            return _masked
        if name == "host":
            return self.authority
        if name in _URL_FIELDS:
            return self.url
        if _plain(name) in _DEFAULT_HEADERS:  # somebody wants to see it
            return _same
        return self._perhaps_url

    def _perhaps_url(self, text: str) -> str:
        return self.url(text) if "://" in text or text[:1] == "/" else text

    def _decide(self, name: str) -> bool:
        name = name.replace("+", " ")
        for _ in range(_DECODINGS):
            if "%" not in name:
                break
            name = unquote_to_bytes(_raw(name)).decode("latin-1")
        name = _raw(name).decode("utf-8", "replace")
        if _plain(name) in self._query:
            return True
        # user[password], token[], login.password; and what an encoded separator stands before.
        return any(_plain(part) in self._query for part in _PARTS.split(name) if part != name)

    def _url(self, text: str) -> str:
        if "@" in text:
            text = _USER.sub(_without_user, text)
        if "%" in text and ("@" in text or "40" in text):
            text = _ENCODED_USER.sub(_without_user, text)
        found = _QUERY.search(text)
        if found is None:
            return self._path(text)
        start = found.start()
        return f"{self._path(text[:start])}{self._pairs(text[start:])}"

    def _path(self, text: str) -> str:
        if "=" not in text and "%" not in text:
            return text
        return "/".join([self._pairs(segment) for segment in text.split("/")])

    def _pairs(self, text: str) -> str:
        if "&" in text:
            return "&".join([self._pair(piece) for piece in text.split("&")])
        if ";" in text:
            return ";".join([self._pair(piece) for piece in _NEXT_PAIR.split(text)])
        return self._pair(text)

    def _pair(self, text: str) -> str:
        """Return what stands between two separators, masked from the first secret value on."""
        start = 0
        for found in _DELIMITER.finditer(text):
            end = found.end()
            # Of the delimiters only = and %3D end so.
            if text[end - 1] in "=dD" and self.hides_key(text[start : found.start()]):
                return f"{text[:end]}{MASK}" if end < len(text) else text
            start = end
        return text


def _names(what: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise UsageError(f"redact: {what} is a list of names, such as [{names!r}], not a text")
    found = tuple(names)
    for name in found:
        if not _plain(name):
            raise UsageError(f"redact: {what}: {name!r} is no name; it has no letter and no digit")
    return found


def _raw(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:  # no text of the wire: an application's
        return text.encode("utf-8", "surrogatepass")


def _masked(text: str) -> str:
    return MASK if text else text


def _same(text: str) -> str:
    return text


def _masked_user(user: str) -> str:
    colon = _COLON.search(user)
    return MASK if colon is None else f"{MASK}{colon[0]}{MASK}"


def _without_user(found: re.Match[str]) -> str:
    groups = found.groups()
    mark, user = groups[:2] if groups[0] is not None else groups[2:]
    return f"{mark}{_masked_user(user)}{found[0][len(mark) + len(user) :]}"


_DEFAULT_HEADERS: Final = frozenset(map(_plain, HEADERS))

DEFAULT: Final = Redaction()
"""What every format does unless it is told otherwise."""

NOTHING: Final = Redaction((), ())
"""Nothing is masked."""


def redacted_target(text: str) -> str:
    """Return a request target as a log may show it: what is secret by default is masked."""
    return DEFAULT.url(text)
