"""How long files may be kept, and the fields that make a browser strict."""

from __future__ import annotations

import pytest

from h2log.app.files.rules import SECURITY, CacheRules, Security, is_fingerprinted
from h2log.errors import UsageError

IMMUTABLE = "max-age=31536000, immutable"


@pytest.mark.parametrize(
    "name",
    [
        "name.3f2a9c1b.js",
        "name-3f2a9c1b.css",
        "3f2a9c1b.js",
        "main.3f2a9c1b.chunk.js",
        "app.3f2a9c1b.js.map",
        "font.3f2a9c1b.min.css",
        "a.b-0123456789abcdef0123456789abcdef.woff2",
        "a.d41d8cd98f00b204e9800998ecf8427e.png",
        "a." + "0f" * 32 + ".js",
    ],
)
def test_a_digest_in_a_name_is_seen(name: str) -> None:
    """8 to 64 hex digits of both kinds, before a dot."""
    assert is_fingerprinted(name)


@pytest.mark.parametrize(
    "name",
    [
        "app.js",
        "style.css",
        "report-20261120.pdf",
        "photo.20261120.jpg",
        "facade.css",
        "my-deadbeef.css",
        "name.3f2a9c1.js",
        "name.3F2A9C1B.js",
        "name3f2a9c1b.js",
        "name_3f2a9c1b.js",
        "name.3f2a9c1b",
        "name-3f2a9c1b-x.js",
        "a." + "0f" * 33 + ".js",
        "avatar-550e8400-e29b-41d4-a716-44665544abcd.png",
        "550e8400-e29b-41d4-a716-44665544abcd.png",
        "",
        ".",
    ],
)
def test_what_is_no_digest_is_none(name: str) -> None:
    """Dates, words and names of things change their content under the same name."""
    assert not is_fingerprinted(name)


@pytest.mark.parametrize(
    ("path", "media", "value"),
    [
        ("index.html", "text/html; charset=utf-8", "no-cache"),
        ("page.3f2a9c1b.html", "text/html; charset=utf-8", "no-cache"),
        ("a/app.3f2a9c1b.js", "text/javascript", IMMUTABLE),
        ("a/app.js", "text/javascript", "no-cache"),
        ("3f2a9c1b.d/app.js", "text/javascript", "no-cache"),
    ],
)
def test_the_usual_rules(path: str, media: str, value: str) -> None:
    """Pages are asked for again; what is named by its content never is."""
    assert CacheRules({}).value(path, media) == value


def test_patterns_come_first() -> None:
    """By name, or with a slash by path; the first that matches; an empty value is no field."""
    rules = CacheRules(
        {
            "/assets/*": IMMUTABLE,
            "*.css": "max-age=60",
            "deep/*/x.js": "max-age=1",
            "private*": "",
            "*": "max-age=5",
        }
    )
    for path, value in {
        "assets/a.css": IMMUTABLE,
        "assets/deep/a.js": IMMUTABLE,
        "b/assets/a.css": "max-age=60",
        "a.css": "max-age=60",
        "deep/er/x.js": "max-age=1",
        "private.txt": "",
        "a/private.txt": "",
        "index.html": "max-age=5",
        "a.CSS": "max-age=5",
    }.items():
        assert rules.value(path, "text/plain") == value, path


@pytest.mark.parametrize("value", ["a\nb", "a\0", " a", "é\u0100"])
def test_a_value_that_is_none_is_refused(value: str) -> None:
    """When the server starts, with the pattern that has it."""
    with pytest.raises(UsageError, match=r"cache_control '\*\.js'"):
        CacheRules({"*.js": value})


def test_security_fields() -> None:
    """Off there is nosniff alone; on there are all; a mapping adds, replaces and leaves out."""
    assert Security(False).fields(https=True) == [("x-content-type-options", "nosniff")]
    assert dict(Security(True).fields(https=True)) == SECURITY
    mine = Security({"X-Frame-Options": "", "referrer-policy": "no-referrer", "x-mine": "1"})
    fields = dict(mine.fields(https=True))
    assert "x-frame-options" not in fields
    assert fields["referrer-policy"] == "no-referrer"
    assert fields["x-mine"] == "1"
    assert fields["x-content-type-options"] == "nosniff"
    with pytest.raises(UsageError, match="security: invalid header name"):
        Security({"bad name": "x"})
    with pytest.raises(UsageError, match="security: invalid value of header x-a"):
        Security({"x-a": "x\r\ny: z"})


def test_rfc6797_7_2() -> None:
    """Strict-Transport-Security goes over https alone."""
    assert "strict-transport-security" in dict(Security(True).fields(https=True))
    assert "strict-transport-security" not in dict(Security(True).fields(https=False))
    assert Security(True).varies
    assert not Security({"strict-transport-security": ""}).varies
    assert not Security(False).varies
