"""Header fields that follow from rules: how long something may be kept, and what browsers forbid.

How long, by default (RFC 9111 section 5.2.2):

- a name that changes with its content (`app.3f2a9c1b.js`, `style-3f2a9c1b.css`): a year, without
  asking again; what is at that address never changes;
- everything else, pages above all: `no-cache`, which is to keep it and ask whether it is current
  before each use. That costs one 304, and a page never meets another version's style sheet.
  Vercel and Netlify say the same in other words (`max-age=0, must-revalidate`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Final

from h2log.app.response import check_fields
from h2log.errors import UsageError

__all__ = ["SECURITY", "CacheRules", "Security", "is_fingerprinted"]

# A year: RFC 9111's practical for ever. Not `public`: where only some may read the files, a shared
# cache would give what it got for one of them to everybody (section 3.5), and where all may, it
# keeps them without that word too.
_IMMUTABLE: Final = "max-age=31536000, immutable"
_REVALIDATED: Final = "no-cache"

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FINGERPRINT: Final = re.compile(r"(?:^|[.-])([0-9a-f]{8,64})(?=\.)")


def is_fingerprinted(name: str) -> bool:
    """Say whether a file's name has a digest of its content: 8 to 64 hex digits before a dot.

    Both kinds of digits must be there, a-f and 0-9: a date (`report-20261120.pdf`) and a word
    (`facade.css`) are none, nor is a UUID, which names a thing and not its content.
    """
    for match in _FINGERPRINT.finditer(_UUID.sub("", name)):
        digits = match[1]
        if not digits.isdigit() and not digits.isalpha():
            return True
    return False


class CacheRules:
    """The values of Cache-Control. Raises UsageError for one that is no field value."""

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._patterns = []
        for pattern, value in patterns.items():
            try:
                check_fields([("cache-control", value)])
            except ValueError as error:
                raise UsageError(f"cache_control {pattern!r}: {error}") from None
            matches = re.compile(fnmatch.translate(pattern.removeprefix("/"))).match
            self._patterns.append(("/" in pattern, matches, value))

    def value(self, path: str, media: str) -> str:
        """Return the value for a file by its path below the folder and its media type."""
        name = path.rpartition("/")[2]
        for whole, matches, value in self._patterns:
            if matches(path if whole else name):
                return value
        if is_fingerprinted(name) and not media.startswith("text/html"):
            return _IMMUTABLE
        return _REVALIDATED


SECURITY: Final[Mapping[str, str]] = {
    # Nobody else's page may frame ours, send our forms elsewhere, or bend our relative links.
    "content-security-policy": (
        "base-uri 'self'; form-action 'self'; frame-ancestors 'self'; object-src 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "strict-origin-when-cross-origin",
    # Two years, as the preload list asks; sent over https alone (RFC 6797 section 7.2).
    "strict-transport-security": "max-age=63072000",
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",  # for browsers without frame-ancestors
}
"""What the option `security` sends. Scripts and styles are not restricted: only who wrote the pages
knows where they come from."""

_HTTPS_ALONE: Final = "strict-transport-security"


class Security:
    """The fields that every response of a folder has.

    `nosniff` is always among them: types are told by name, and what is served as text must not
    become a script. Raises UsageError for a field that is none.
    """

    def __init__(self, choice: bool | Mapping[str, str]) -> None:
        fields = {"x-content-type-options": "nosniff"}
        if choice is not False:
            fields = dict(SECURITY)
        if isinstance(choice, Mapping):
            fields |= {name.lower(): value for name, value in choice.items()}
        self._fields = [pair for pair in fields.items() if pair[1]]
        try:
            check_fields(self._fields)
        except ValueError as error:
            raise UsageError(f"the static folder's option security: {error}") from None
        self.varies = _HTTPS_ALONE in dict(self._fields)
        """Whether they differ between https and http."""

    def fields(self, https: bool) -> list[tuple[str, str]]:
        """Return the fields of a response that goes over https, or not."""
        return [pair for pair in self._fields if https or pair[0] != _HTTPS_ALONE]
