"""What is secret in a URL, in a host and in a header field: found by its name, and masked."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from h2log.access import MASK, Redaction, redacted_target
from h2log.access.redaction import DEFAULT, NOTHING
from h2log.config.secret_names import HEADERS, QUERY
from h2log.errors import UsageError

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a?token=abc", "/a?token=REDACTED"),
        ("/a?q=1&token=abc&b=2", "/a?q=1&token=REDACTED&b=2"),
        ("/a?token=1&token=2&token=3", "/a?token=REDACTED&token=REDACTED&token=REDACTED"),
        ("/a?TOKEN=1&Token=2&tOkEn=3", "/a?TOKEN=REDACTED&Token=REDACTED&tOkEn=REDACTED"),
        ("/a?%74oken=abc", "/a?%74oken=REDACTED"),
        ("/a?%54%4F%4b%45%6e=abc", "/a?%54%4F%4b%45%6e=REDACTED"),
        ("/a?%2574oken=abc", "/a?%2574oken=REDACTED"),
        ("/a?+token+=abc", "/a?+token+=REDACTED"),
        ("/a?%20token%00=abc", "/a?%20token%00=REDACTED"),
        ("/a?access_token=1&accessToken=2&access-token=3", None),
        ("/a?api_key=1&apikey=2&apiKey=3&API-KEY=4&api.key=5&api%5Fkey=6", None),
        ("/a?user[password]=1&token[]=2&tokens[token][0]=3&login.password=4", None),
        ("/a?user%5Bpassword%5D=abc", "/a?user%5Bpassword%5D=REDACTED"),
        ("/a?csrfmiddlewaretoken=1&SAMLResponse=2&AWSAccessKeyId=3&X-Goog-Signature=4", None),
        ("/a?token=abc==", "/a?token=REDACTED"),
        ("/a?token==abc", "/a?token=REDACTED"),
        ("/a?token=a/b?c#d", "/a?token=REDACTED"),
        ("/a?token=ab%26cd%3Bef&b=1", "/a?token=REDACTED&b=1"),
        ("/a?token=%00%ff%", "/a?token=REDACTED"),
        ("/a?token=\xff\x00 b", "/a?token=REDACTED"),
        ("?token=abc", "?token=REDACTED"),
        ("/a??token=abc", "/a??token=REDACTED"),
        ("/a?&&token=abc&", "/a?&&token=REDACTED&"),
    ],
)
def test_a_secret_s_value_is_masked(target: str, shown: str | None) -> None:
    """However its name is written; the name stays, and so does all that is not secret."""
    if shown is None:
        pairs = target.removeprefix("/a?").split("&")
        shown = "/a?" + "&".join([f"{pair.partition('=')[0]}=REDACTED" for pair in pairs])
    assert DEFAULT.url(target) == shown
    assert redacted_target(target) == shown


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a?b=1;token=abc;c=2", "/a?b=1;token=REDACTED;c=2"),
        ("/a?token=abc;token=def", "/a?token=REDACTED;token=REDACTED"),
        # One value to whoever knows no other separator than `&`.
        ("/a?token=ab;cd", "/a?token=REDACTED"),
        ("/a?token=ab;cd&b=1", "/a?token=REDACTED&b=1"),
        ("/a?b=1&token=ab;cd=ef&c=2", "/a?b=1&token=REDACTED&c=2"),
        ("/a?b=1&c=2;token=abc&d=3", "/a?b=1&c=2;token=REDACTED&d=3"),
    ],
)
def test_a_semicolon_may_separate(target: str, shown: str) -> None:
    """A pair that follows one is found; a secret value that may go on after one is masked whole."""
    assert DEFAULT.url(target) == shown


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a;jsessionid=1A2B", "/a;jsessionid=REDACTED"),
        ("/a;jsessionid=1A2B?b=c", "/a;jsessionid=REDACTED?b=c"),
        ("/a;x=1;token=abc;y=2/b;sid=1/c", "/a;x=1;token=REDACTED;y=2/b;sid=REDACTED/c"),
        ("/reset/token=abc/now", "/reset/token=REDACTED/now"),
        ("/cb#access_token=abc&token_type=bearer", "/cb#access_token=REDACTED&token_type=bearer"),
        ("/cb?a=b#id_token=abc", "/cb?a=b#id_token=REDACTED"),
    ],
)
def test_parameters_of_the_path_and_the_fragment_are_looked_at(target: str, shown: str) -> None:
    """Session ids stand in paths, and tokens of the implicit grant in fragments."""
    assert DEFAULT.url(target) == shown


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/login?next=/cb?token=abc&b=1", "/login?next=/cb?token=REDACTED&b=1"),
        ("/login?next=%2Fcb%3Ftoken%3Dabc&b=1", "/login?next=%2Fcb%3Ftoken%3DREDACTED&b=1"),
        ("/login?next=%2fcb%3fa%3d1%26token%3dabc%26b%3d2", None),
        ("/login?next=%252Fcb%253Ftoken%253Dabc", "/login?next=%252Fcb%253Ftoken%253DREDACTED"),
        ("/login?state=token%3Dabc", "/login?state=token%3DREDACTED"),
        (
            "/proxy/https%3A%2F%2Fexample.org%2Fa%3Fsig%3Dabc/100x100",
            "/proxy/https%3A%2F%2Fexample.org%2Fa%3Fsig%3DREDACTED/100x100",
        ),
        (
            "/a?u=https://jo:pw@example.org/&email=jo@example.org",
            "/a?u=https://REDACTED:REDACTED@example.org/&email=jo@example.org",
        ),
        (
            "/a?u=https%3A%2F%2Fjo%3Apw%40example.org%2F&b=1",
            "/a?u=https%3A%2F%2FREDACTED%3AREDACTED%40example.org%2F&b=1",
        ),
    ],
)
def test_a_url_inside_of_a_url_is_looked_at(target: str, shown: str | None) -> None:
    """Encoded or not; from the first secret in it on, the value is masked."""
    assert DEFAULT.url(target) == (shown or "/login?next=%2fcb%3fa%3d1%26token%3dREDACTED")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://jo:pw@example.org/a", "https://REDACTED:REDACTED@example.org/a"),
        ("https://jo@example.org/a?b=c", "https://REDACTED@example.org/a?b=c"),
        ("https://jo:p@w@example.org", "https://REDACTED:REDACTED@example.org"),
        ("//jo:pw@example.org/", "//REDACTED:REDACTED@example.org/"),
        (
            "https://jo:pw@example.org?token=a",
            "https://REDACTED:REDACTED@example.org?token=REDACTED",
        ),
        ("https://jo%3Apw@example.org/", "https://REDACTED%3AREDACTED@example.org/"),
        ("https://example.org/@jo", "https://example.org/@jo"),
        ("https://example.org?a=jo@b", "https://example.org?a=jo@b"),
        ("/@jo/a@b?c=d@e", "/@jo/a@b?c=d@e"),
        ("mailto:jo@example.org", "mailto:jo@example.org"),
    ],
)
def test_user_and_password_of_a_url_are_masked(url: str, shown: str) -> None:
    """RFC 3986 section 3.2.1, OpenTelemetry's `url.full`: what stands before the host's `@`."""
    assert DEFAULT.url(url) == shown


@pytest.mark.parametrize(
    "target",
    [
        *("", "*", "/", "/a", "/a?", "/a?b", "/a?b=c", "/a?b=c&d=", "/a?=", "/a?=b", "/a?==&&;;"),
        *("/a?token", "/a?token&b=c", "/a?token=", "/a?token=&b=c", "/a?token;b=c", "/token"),
        *("/a?token_type=bearer", "/a?tokens=3", "/a?mytoken=1", "/a?monkey=1", "/a?keyboard=2"),
        *("/a?page=2&q=token", "/a?q=a%20b%", "/a?q=%zz", "/a%20b/%C3%A9", "/a?state=open"),
        *("example.org:443", "/a?q=what+is+a+token", "/a?a[b]=c", "/a?passenger=jo"),
    ],
)
def test_what_is_not_secret_stays(target: str) -> None:
    """A name alone, an empty value and a name that only contains one are nothing to mask."""
    assert DEFAULT.url(target) == target


def test_nothing_to_mask_is_the_same_text() -> None:
    """Most targets are not even copied."""
    for target in ("/article/" + "a" * 50, "", "*"):
        assert DEFAULT.url(target) is target


@pytest.mark.parametrize(
    ("authority", "shown"),
    [
        ("example.org:443", "example.org:443"),
        ("jo:pw@example.org:443", "REDACTED:REDACTED@example.org:443"),
        ("jo@[::1]", "REDACTED@[::1]"),
        ("a@b:c@example.org", "REDACTED:REDACTED@example.org"),
        ("@example.org", "@example.org"),
        ("", ""),
    ],
)
def test_a_host_has_no_user(authority: str, shown: str) -> None:
    """RFC 9113 section 8.3.1 forbids one; a client that sends it all the same is not given away."""
    assert DEFAULT.authority(authority) == shown
    assert DEFAULT.field("host")(authority) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("authorization", "Bearer abc", MASK),
        ("Authorization", "Basic dGo6YQ==", MASK),
        ("cookie", "a=b; session=c", MASK),
        ("SET-COOKIE", "a=b", MASK),
        ("x-api-key", "abc", MASK),
        ("X_Api_Key", "abc", MASK),
        ("apikey", "abc", MASK),
        ("cookie", "", ""),
        ("location", "/cb?code=abc&a=b", "/cb?code=REDACTED&a=b"),
        ("location", "?code=abc", "?code=REDACTED"),
        ("location", "https://a/cb#access_token=abc", "https://a/cb#access_token=REDACTED"),
        ("referer", "https://jo:pw@a/?sig=abc", "https://REDACTED:REDACTED@a/?sig=REDACTED"),
        ("link", "</a?token=abc>; rel=next", "</a?token=REDACTED; rel=next"),
        ("refresh", "5; url=/a?token=abc", "5; url=/a?token=REDACTED"),
        ("x-forwarded-uri", "/a?token=abc", "/a?token=REDACTED"),
        ("hx-current-url", "https://a/?token=abc", "https://a/?token=REDACTED"),
        ("accept", "text/html;q=0.9,*/*;token=a", "text/html;q=0.9,*/*;token=a"),
        ("etag", '"key=1"', '"key=1"'),
        ("content-type", "text/html; charset=utf-8", "text/html; charset=utf-8"),
    ],
)
def test_a_header_field_is_secret_or_may_be_a_url(name: str, value: str, shown: str) -> None:
    """As a whole by its name, whatever its case; else what is secret in it if it is a URL."""
    assert DEFAULT.field(name)(value) == shown


@pytest.mark.parametrize("name", QUERY)
def test_every_key_of_the_default_list_is_found(name: str) -> None:
    """In capitals and encoded, too."""
    encoded = "".join([f"%{ord(character):02x}" for character in name])
    for written in (name, name.upper(), name.replace("_", ""), encoded):
        assert DEFAULT.url(f"/?a=1&{written}={SECRET}&b=2") == f"/?a=1&{written}=REDACTED&b=2"


@pytest.mark.parametrize("name", HEADERS)
def test_every_field_of_the_default_list_is_found(name: str) -> None:
    """In capitals, too."""
    assert DEFAULT.hides_header(name)
    assert DEFAULT.field(name.upper())(SECRET) == MASK


def test_the_lists_have_what_others_hide() -> None:
    """OpenTelemetry's keys, Caddy's fields, OAuth's parameters; no name stands twice."""
    for key in ("AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature", "access_token", "code"):
        assert DEFAULT.hides_key(key)
    for name in ("cookie", "set-cookie", "authorization", "proxy-authorization"):
        assert DEFAULT.hides_header(name)
    for names in (QUERY, HEADERS):
        plain = ["".join(filter(str.isalnum, name)) for name in names]
        assert len(set(plain)) == len(plain)


def test_a_list_of_one_s_own_replaces_the_default() -> None:
    """Each for itself; the other stays."""
    own = Redaction(query=["country", "Пароль"])
    assert own.url("/?country=de&token=abc") == "/?country=REDACTED&token=abc"
    assert own.url(f"/?{quote('пароль')}=abc") == f"/?{quote('пароль')}=REDACTED"
    assert own.hides_header("cookie")
    own = Redaction(headers=["X-Own", "referer", "host"])
    assert own.field("x-own")("a") == own.field("referer")("a") == own.field("host")("a") == MASK
    assert own.field("cookie")("a=b; token=c; u=https://a/?token=d") == (
        "a=b; token=c; u=https://a/?token=d"
    )
    assert own.url("/?token=abc") == "/?token=REDACTED"
    assert repr(own) == f"<Redaction of {len(QUERY)} query keys and 3 header fields>"


def test_an_empty_list_masks_nothing() -> None:
    """URLs are then as they were sent, users and passwords in them too."""
    for text in ("/?token=abc", "https://jo:pw@a/?sig=1", "/a;sid=1", "jo:pw@example.org"):
        assert NOTHING.url(text) is text
        assert NOTHING.authority(text) is text
        assert NOTHING.field("location")(text) is text
    assert NOTHING.field("cookie")("a=b") == "a=b"
    assert Redaction(query=()).field("cookie")("a=b") == MASK


@pytest.mark.parametrize("name", ["", "-", "_[]_", " "])
def test_a_name_with_nothing_to_compare_is_refused(name: str) -> None:
    """It would be that of no field, or of every one."""
    with pytest.raises(UsageError, match=r"redact: query: .* is no name"):
        Redaction(query=["token", name])
    with pytest.raises(UsageError, match=r"redact: headers: .* is no name"):
        Redaction(headers=[name])


def test_a_text_is_no_list() -> None:
    """Its letters are not names."""
    with pytest.raises(UsageError, match=r"query is a list of names, such as \['token'\]"):
        Redaction(query="token")


def test_as_many_names_as_a_client_likes() -> None:
    """What is remembered of names has a bound, and forgetting changes no answer."""
    redaction = Redaction()
    for n in range(10_000):
        assert not redaction.hides_key(f"name{n}")
    assert len(redaction._known) <= 4096
    assert redaction.hides_key("token")
    long = "token" + "." * 1000
    assert redaction.hides_key(long)
    assert long not in redaction._known


pieces = st.sampled_from(
    [
        *("token", "TOKEN", "%74oken", "page", "q", "", "access_token", "user[password]", "sid"),
        *("=", "=", "&", ";", "?", "#", "/", "%3D", "%3F", "%26", "%2F", "%253D", "%3A", "%40"),
        *("@", ":", "//", "https://", "https%3A%2F%2F", "+", "%", "\xff", "\x00", "\n", "é", "€"),
        *(MASK, SECRET, "a", "1", ".", "[", "]", "-"),
    ]
)
urls = st.one_of(st.lists(pieces, max_size=20).map("".join), st.text(max_size=40))


@given(urls)
@example("%3A%2F%2F%40")
@example("//@")
def test_any_text_can_be_masked_and_once_is_enough(text: str) -> None:
    """It never fails, and what is masked stays as it is; without the mask nothing was changed."""
    shown = DEFAULT.url(text)
    assert DEFAULT.url(shown) == shown
    assert MASK in shown or shown == text
    assert DEFAULT.authority(DEFAULT.authority(text)) == DEFAULT.authority(text)


@given(urls)
@example("/a%2Ftoken=b")
@example("/%253Ftoken=b")
def test_a_look_at_the_names_is_enough_for_most(text: str) -> None:
    """The shorter way, for what has nothing encoded in it that matters, is no other."""
    assert DEFAULT.url(text) == DEFAULT._url(text)


def disguised(name: str, how: list[int]) -> str:
    """Return `name` as some client may write it: other cases, encoded letters."""
    made = []
    for character, choice in zip(name, how, strict=False):
        match choice:
            case 0:
                made.append(character.upper())
            case 1:
                made.append(f"%{ord(character):02x}")
            case 2:
                made.append(f"%{ord(character.upper()):02X}")
            case _:
                made.append(character)
    return "".join(made) + name[len(how) :]


plain_text = st.text("abcdefghij0123456789._~!$'()*,:@/?-", max_size=10)


@given(
    st.sampled_from(QUERY),
    st.lists(st.integers(0, 5), max_size=12),
    plain_text,
    plain_text,
    st.sampled_from(["?", "?a=b&", "?a&", "#", ";", "?x=/y?", "?x=%2Fy%3F"]),
    st.booleans(),
)
def test_a_secret_is_never_shown(
    name: str, how: list[int], before: str, after: str, mark: str, encoded: bool
) -> None:
    """Whatever its name is written like, and whatever stands around it."""
    value = f"{SECRET}{after}" if mark != ";" else SECRET
    equals = "=" if "%" not in mark else "%3D"
    if encoded:
        value = quote(value, safe="")
    text = f"/{before.partition('?')[0]}{mark}{disguised(name, how)}{equals}{value}&last=1"
    shown = DEFAULT.url(text)
    assert SECRET not in unquote(shown)
    assert MASK in shown
    assert shown.endswith("&last=1") or mark == ";"


@given(st.lists(st.tuples(plain_text, plain_text), max_size=6), st.sampled_from("&;"))
def test_pairs_without_a_secret_stay(pairs: list[tuple[str, str]], separator: str) -> None:
    """No key in the list, no change to a query."""
    names = [f"x{name}" for name, _ in pairs]
    assume(not any("?" in text or "/" in text or ":" in text for pair in pairs for text in pair))
    assume(not any(DEFAULT.hides_key(name) for name in names))
    joined = [f"{name}={value}" for name, (_, value) in zip(names, pairs, strict=True)]
    text = f"/a?{separator.join(joined)}"
    assert DEFAULT.url(text) == text
