"""Basic authentication (RFC 7617): a name and a password with every request.

    app.use(basic_auth(accounts({"ada": os.environ["ADAS_PASSWORD"]}), realm="reports"))

It is safe only over TLS. The name is in `request.user` then, and in the log.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import inspect
import re
import unicodedata
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from h2log.app.middleware import CallNext
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import HTTPError

__all__ = ["Check", "accounts", "basic_auth", "credentials", "equal"]

Check = Callable[[str, str], bool | Awaitable[bool]]
"""Says whether a name and a password belong together: plain (it must not block) or `async`."""

_BASIC: Final = re.compile(r"basic +([A-Za-z0-9+/\-._~]+=*)", re.IGNORECASE).fullmatch
_Middleware = Callable[[Request, CallNext], Awaitable[Response]]
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


def equal(left: str | bytes, right: str | bytes) -> bool:
    """Say whether two secrets are the same, without telling by the time it takes how much of them.

    Not even their lengths show: it is their digests that are compared. Texts are compared as UTF-8.
    """
    return hmac.compare_digest(_digest(left), _digest(right))


def _digest(secret: str | bytes) -> bytes:
    raw = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
    return hashlib.sha256(raw).digest()


def accounts(passwords: Mapping[str, str]) -> Check:
    """Return a check for a few names and their passwords, which takes as long for unknown names.

    For passwords that people choose and that are kept in a database, check their hashes (argon2,
    scrypt) in a thread instead. Raises ValueError for a name with a colon, which cannot be sent
    (RFC 7617 section 2), and for an empty password.
    """
    known: dict[bytes, bytes] = {}
    for name, password in passwords.items():
        if ":" in name or _CONTROL(name):
            raise ValueError(f"the name {name!r} cannot be sent: no colon, no control characters")
        if not password:
            raise ValueError(f"the password of {name!r} is empty")
        known[_digest(_normal(name))] = _digest(_normal(password))

    def check(name: str, password: str) -> bool:
        wanted, given = _digest(name), _digest(password)
        found = False
        for user, expected in known.items():  # all of them, whichever it is
            found |= hmac.compare_digest(user, wanted) & hmac.compare_digest(expected, given)
        return found

    return check


def credentials(request: Request) -> tuple[str, str] | None:
    """Return name and password of a request's `Authorization: Basic`, None when there are none.

    Both are UTF-8 in Unicode's form NFC (RFC 8265 sections 3.3 and 4.2). What is malformed is as
    none: several such fields, no base64, no colon, no UTF-8, control characters (RFC 7617,
    section 2).
    """
    fields = request.headers.getall("authorization")
    found = _BASIC(fields[0].strip(" \t")) if len(fields) == 1 else None
    if found is None:
        return None
    try:
        text = b64decode(found[1], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    name, colon, password = text.partition(":")
    if not colon or _CONTROL(text):
        return None
    return _normal(name), _normal(password)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def basic_auth(check: Check, realm: str = "restricted") -> _Middleware:
    """Return middleware that lets only those pass whom `check` knows, and sets `request.user`.

    All others get 401 with the challenge (RFC 9110 section 11.6.1). `realm` is what a browser shows
    with its question. Raises ValueError for a realm that is not printable ASCII, and TypeError for
    a check that cannot be called.
    """
    if not callable(check):
        raise TypeError(f"a check is a function of name and password, not {type(check).__name__}")
    if not (realm.isascii() and realm.isprintable()):
        raise ValueError(f"a realm is printable ASCII, not {realm!r}")
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    challenge = (
        ("www-authenticate", f'Basic realm="{quoted}", charset="UTF-8"'),
        ("cache-control", "no-store"),
    )

    async def authenticated(request: Request, call_next: CallNext) -> Response:
        given = credentials(request)
        if given is not None:
            passed = check(*given)
            if inspect.isawaitable(passed):
                passed = await passed
            if passed is True:
                request.user = given[0]
                return await call_next(request)
            if passed is not False:
                raise TypeError(
                    f"the check of basic_auth returned {type(passed).__name__}, expected bool"
                )
        raise HTTPError(401, headers=challenge)

    return authenticated
