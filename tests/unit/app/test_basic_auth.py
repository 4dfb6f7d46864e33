"""Basic authentication (RFC 7617)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from h2log.app.basic_auth import accounts, basic_auth, credentials, equal
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import HTTPError
from tests.unit.app.browser import make_request


def basic(text: str | bytes, scheme: str = "Basic ") -> tuple[str, str]:
    """Return an Authorization field for `name:password`."""
    raw = text.encode() if isinstance(text, str) else text
    return ("authorization", scheme + b64encode(raw).decode())


async def hello(request: Request) -> Response:
    """Say who asked."""
    return Response.text(f"hello {request.user}")


async def ask(
    check: Callable[[str, str], Any], *fields: tuple[str, str], realm: str = "here"
) -> Response:
    """Ask with header fields."""
    return await basic_auth(check, realm)(make_request(*fields), hello)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada:secret", ("ada", "secret")),
        ("Aladdin:open sesame", ("Aladdin", "open sesame")),  # RFC 7617 section 2
        ("test:123£", ("test", "123£")),  # section 2.1
        ("ada:with:colons:", ("ada", "with:colons:")),
        (":", ("", "")),
        ("ada:", ("ada", "")),
        ("ada:cafe\u0301", ("ada", "café")),
        ("nothing", None),
        ("", None),
        (b"ada:\xff", None),
        (b"test:123\xa3", None),
        ("ada:a\0b", None),
        ("a\nda:b", None),
        ("ada:b\x7f", None),
        ("ada:\x85", None),
    ],
)
def test_name_and_password(text: str | bytes, expected: tuple[str, str] | None) -> None:
    """The first colon divides them; UTF-8 without control characters."""
    assert credentials(make_request(basic(text))) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),
        ("bAsIc   QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", None),
        ("Basic", None),
        ("Basic ", None),
        ("Basic =", None),
        ("Basic YTpi YTpi", None),
        ("Basic YTpi, Basic YTpi", None),
        ("Basic Y*Tpi", None),
        ("Basic YT-_", None),
        ("BasicYTpi", None),
        ("Bearer YTpi", None),
        ("", None),
        ("Basic \xe9", None),
        ("Basic " + "A" * 100_000, None),
    ],
)
def test_the_field(field: str, expected: tuple[str, str] | None) -> None:
    """One scheme in any case, and base64; all else is as no field."""
    assert credentials(make_request(("authorization", field))) == expected


def test_two_fields_are_none() -> None:
    """Nobody can tell which is meant."""
    assert credentials(make_request(basic("a:b"), basic("a:b"))) is None
    assert credentials(make_request()) is None


async def later(name: str, password: str) -> bool:
    """A check that waits."""
    return (name, password) == ("ada", "secret")


@pytest.mark.parametrize(
    "check", [later, lambda n, p: (n, p) == ("ada", "secret"), accounts({"ada": "secret"})]
)
async def test_who_is_known_passes(check: Callable[[str, str], bool | Awaitable[bool]]) -> None:
    """The name is the request's user."""
    response = await ask(check, basic("ada:secret"))
    assert response.body == b"hello ada"
    for wrong in ((), (basic("ada:wrong"),), (basic("bob:secret"),), (("authorization", "x"),)):
        with pytest.raises(HTTPError) as caught:
            await ask(check, *wrong)
        assert caught.value.status == 401
        assert dict(caught.value.headers) == {
            "www-authenticate": 'Basic realm="here", charset="UTF-8"',
            "cache-control": "no-store",
        }


async def test_without_credentials_the_check_is_not_asked() -> None:
    """Nor does the user have a name then."""

    def check(name: str, password: str) -> bool:
        raise AssertionError

    request = make_request(("authorization", "Basic !"))
    with pytest.raises(HTTPError, match="401"):
        await basic_auth(check)(request, hello)
    assert request.user is None


async def test_a_realm_is_quoted() -> None:
    """As RFC 9110 section 5.6.4 has it."""
    with pytest.raises(HTTPError) as caught:
        await ask(later, realm='the "inner" \\ one')
    [challenge] = [value for name, value in caught.value.headers if name == "www-authenticate"]
    assert challenge == 'Basic realm="the \\"inner\\" \\\\ one", charset="UTF-8"'


@pytest.mark.parametrize("realm", ["a\nb", "é", "a\x00", "\x7f"])
def test_a_realm_is_printable_ascii(realm: str) -> None:
    """It is part of a header field."""
    with pytest.raises(ValueError, match="a realm is printable ASCII"):
        basic_auth(later, realm)


async def test_a_check_answers_yes_or_no() -> None:
    """Anything else is a mistake that must let nobody in: a TypeError."""
    answers: list[object] = [None, 1, "no", ("user",)]
    while answers:
        with pytest.raises(TypeError, match="expected bool"):
            await ask(lambda name, password: answers.pop(), basic("a:b"))
    with pytest.raises(TypeError, match="a check is a function"):
        basic_auth({"ada": "secret"})  # type: ignore[arg-type]


async def test_what_a_check_raises_comes_through() -> None:
    """It is no wrong password."""

    async def check(name: str, password: str) -> bool:
        raise HTTPError(503)

    with pytest.raises(HTTPError, match="503"):
        await ask(check, basic("a:b"))


def test_accounts() -> None:
    """Names and passwords belong together; both in whatever form of Unicode."""
    check = accounts({"ada": "one", "bob": "two", "jos\u0065\u0301": "caf\u00e9"})
    assert check("ada", "one")
    assert check("bob", "two")
    assert check("josé", "café")
    for name, password in (("ada", "two"), ("", ""), ("ada", ""), ("carl", "one"), ("ADA", "one")):
        assert not check(name, password)
    assert not accounts({})("", "")


@pytest.mark.parametrize("names", [{"a:b": "c"}, {"a\n": "c"}, {"ada": ""}])
def test_accounts_that_nobody_could_use(names: dict[str, str]) -> None:
    """Are a ValueError."""
    with pytest.raises(ValueError, match=r"cannot be sent|is empty"):
        accounts(names)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("secret", "secret", True),
        ("secret", b"secret", True),
        ("ä", "ä".encode(), True),
        ("secret", "secre", False),
        ("secret", "Secret", False),
        ("", "", True),
        ("", "a", False),
        ("\udcff", b"\xff", True),
    ],
)
def test_equal(left: str | bytes, right: str | bytes, same: bool) -> None:
    """Texts as UTF-8, of any length."""
    assert equal(left, right) is same
    assert equal(right, left) is same
