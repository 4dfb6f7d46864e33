"""Cookies (RFC 6265bis): read tolerantly, written strictly.

Names are read as they were sent: a percent-coded name would let `__%48ost-x` pass for one that
only a secure page could have set. Values are percent-coded UTF-8, the other way round on reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import quote, unquote

from h2log.clock import http_date

__all__ = ["SameSite", "parse_cookies", "set_cookie"]

SameSite = Literal["Strict", "Lax", "None"]
"""Which requests from other sites carry a cookie: none, navigation alone, all."""

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # a token
_DOMAIN: Final = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
).fullmatch
_PATH: Final = re.compile(r"/[\x20-\x3a\x3c-\x7e]*").fullmatch  # no controls, no semicolon
# Cookie octets (RFC 6265bis section 4.1.1) without the percent sign, which codes the others.
_SAFE: Final = "!#$&'()*+-./:<=>?@[]^_`{|}~"

MAX_PAIR: Final = 4096
"""Bytes of name and value together beyond which a client ignores a cookie (section 5.6)."""
MAX_ATTRIBUTE: Final = 1024
"""Bytes of an attribute's value beyond which a client ignores the attribute (section 5.6)."""

# Prefixes of names, lower case since clients compare them so, and what they promise (4.1.3).
_SECURE_PREFIXES: Final = ("__secure-", "__host-", "__http-", "__hosthttp-")
_HOST_PREFIXES: Final = ("__host-", "__hosthttp-")
_HTTP_PREFIXES: Final = ("__http-", "__host-http-", "__hosthttp-")


def parse_cookies(values: Iterable[str]) -> dict[str, str]:
    """Return the cookies of a request by name, the first of several with one name.

    `values` are those of its Cookie fields, as latin-1 texts; HTTP/2 may spread them over several
    (RFC 9113 section 8.2.3). What is no pair, or has no name, is passed over; quotes around a
    value are dropped and percent coding is undone as UTF-8.
    """
    found: dict[str, str] = {}
    for value in values:
        for pair in value.split(";"):
            name, equals, text = pair.partition("=")
            name = name.strip(" \t")
            if not equals or not name or name in found:
                continue
            text = text.strip(" \t")
            if len(text) > 1 and text[0] == text[-1] == '"':
                text = text[1:-1]
            if not text.isascii():
                text = text.encode("latin-1", "replace").decode("utf-8", "replace")
            found[name] = unquote(text) if "%" in text else text
    return found


def set_cookie(
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    expires: datetime | float | None = None,
    domain: str | None = None,
    path: str | None = "/",
    secure: bool = True,
    http_only: bool = True,
    same_site: SameSite | None = "Lax",
    partitioned: bool = False,
) -> str:
    """Return the value of a Set-Cookie field (RFC 6265bis section 4.1).

    `max_age` is in seconds and `expires` a time, as a datetime with its zone or epoch seconds;
    without both, the cookie lasts as long as the client's session. Raises ValueError for what a
    client would ignore or misread: a name that is no token, a pair of more than 4,096 bytes, a
    domain, a path or a time that is none, `same_site="None"` or `partitioned` without `secure`,
    and a name whose prefix promises what the attributes do not keep.
    """
    if _NAME(name) is None:
        raise ValueError(f"invalid cookie name {name!r}: it must be a token, such as `theme`")
    if not isinstance(value, str):
        raise TypeError(f"the value of cookie {name} is {type(value).__name__}, expected str")
    coded = quote(value, safe=_SAFE)
    if len(name) + len(coded) > MAX_PAIR:
        raise ValueError(
            f"cookie {name} is {len(name) + len(coded)} bytes, more than the {MAX_PAIR} "
            "that a client keeps; keep the data on the server"
        )
    _check_promises(name, domain, path, secure, http_only)
    parts = [f"{name}={coded}"]
    if expires is not None:
        parts.append(f"Expires={_date(name, expires)}")
    if max_age is not None:
        if type(max_age) is not int or max_age < 0:
            raise ValueError(f"max_age of cookie {name} must be whole seconds, got {max_age!r}")
        parts.append(f"Max-Age={max_age}")
    if domain is not None:
        if len(domain) > 253 or _DOMAIN(domain.lower()) is None:
            raise ValueError(
                f"invalid domain {domain!r} of cookie {name}: it must be a host name in ASCII, "
                "without a leading dot"
            )
        parts.append(f"Domain={domain.lower()}")
    if path is not None:
        if len(path) > MAX_ATTRIBUTE or _PATH(path) is None or path != path.rstrip(" "):
            raise ValueError(
                f"invalid path {path!r} of cookie {name}: it must begin with / and be ASCII "
                "without semicolons"
            )
        parts.append(f"Path={path}")
    if secure:
        parts.append("Secure")
    if http_only:
        parts.append("HttpOnly")
    if same_site is not None:
        if same_site not in ("Strict", "Lax", "None"):
            raise ValueError(
                f"same_site of cookie {name} must be Strict, Lax or None, got {same_site!r}"
            )
        if same_site == "None" and not secure:
            raise ValueError(f"cookie {name} with same_site None must be secure")
        parts.append(f"SameSite={same_site}")
    if partitioned:
        if not secure:
            raise ValueError(f"cookie {name} that is partitioned must be secure")
        parts.append("Partitioned")
    return "; ".join(parts)


def _check_promises(
    name: str, domain: str | None, path: str | None, secure: bool, http_only: bool
) -> None:
    """Raise ValueError for a prefix whose promise is not kept: clients drop such a cookie."""
    lower = name.lower()
    if not lower.startswith("__"):
        return
    if lower.startswith(_SECURE_PREFIXES) and not secure:
        raise ValueError(f"cookie {name} must be secure, by its prefix")
    if lower.startswith(_HOST_PREFIXES) and (domain is not None or path != "/"):
        raise ValueError(f"cookie {name} must have no domain and the path /, by its prefix")
    if lower.startswith(_HTTP_PREFIXES) and not http_only:
        raise ValueError(f"cookie {name} must be http_only, by its prefix")


def _date(name: str, expires: datetime | float) -> str:
    if isinstance(expires, datetime):
        if expires.tzinfo is None:
            raise ValueError(
                f"expires of cookie {name} has no time zone; give it one, such as datetime.UTC"
            )
        expires = expires.timestamp()
    try:
        year = datetime.fromtimestamp(expires, UTC).year
    except (ValueError, OverflowError, OSError):
        year = 0
    if not 1970 <= year <= 9999:
        raise ValueError(f"expires of cookie {name} must be a time from 1970 to 9999")
    return http_date(expires)
