"""The expression of `skip`: what it means, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.access.record import UNKNOWN, AccessRecord, Outcome, Session
from h2log.access.skip import NAMES, SkipError, compile_skip


def record(status: int = 200, path: str = "/a/b?q=1", method: str = "GET") -> AccessRecord:
    """Return a finished record."""
    facts = SimpleNamespace(
        method=method,
        path=path,
        scheme="https",
        authority="localhost:8443",
        fields=((b"user-agent", b"Mozilla/5.0 (a Bot)"), (b"referer", b"https://x/")),
    )
    session = Session("S", "192.0.2.1", 5000, 0.0, lambda record: None)
    session.protocol = "h2"
    made = AccessRecord(session, cast(Any, facts), "R", 1, 0.0, 10.0)
    made.status, made.end, made.sent, made.received = status, 10.25, 6200, 5
    made.outcome = Outcome.COMPLETE
    return made


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("status < 400", True),
        ("status >= 400", False),
        ("200 <= status < 300", True),
        ("status in (200, 304)", True),
        ("status not in [200, 304]", False),
        ("status == 200 and method == 'GET'", True),
        ("status == 404 or ms > 200", True),
        ("not (status == 404 or ms > 300)", True),
        ('path == "/a/b"', True),
        ('url == "/a/b?q=1"', True),
        ('query == "q=1"', True),
        ('path.startswith("/a/")', True),
        ('path.endswith(".css")', False),
        ('"bot" in user_agent', False),
        ('"bot" in user_agent.lower()', True),
        ('user_agent.lower().startswith("mozilla")', True),
        ('referrer == "https://x/"', True),
        ('method in ("GET", "HEAD")', True),
        ('outcome != "COMPLETE"', False),
        ('outcome in ("COMPLETE", "TIMEOUT")', True),
        ('protocol == "h2"', True),
        ("bytes > 6199", True),
        ("received == 5", True),
        ("ms == 250", True),
        ("250.0 == ms", True),
        ("bytes > -1", True),
        ('client == "192.0.2.1"', True),
        ('session == "S" and id == "R" and stream == 1 and nth == 1', True),
        ('scheme == "https" and authority.startswith("localhost")', True),
        ('cache == ""', True),
        ("True", True),
        ("not True", False),
        ("  status\n < 400 ", True),
    ],
)
def test_it_holds_or_not(expression: str, holds: bool) -> None:
    """As Python would have it."""
    assert compile_skip(expression)(record()) is holds


def test_without_a_response_there_is_no_order() -> None:
    """A request that got no answer is not below 400, nor above; its status is 0."""
    lost = record(status=0)
    for expression in ("status < 400", "status >= 400", "400 > status", "0 <= status < 400"):
        assert compile_skip(expression)(lost) is False
    assert compile_skip("status == 0")(lost) is True
    assert compile_skip("status != 200")(lost) is True


def test_a_stream_that_is_not_known_has_no_order() -> None:
    """Neither has a stream that another server keeps to itself."""
    made = record()
    made.stream_id = UNKNOWN
    for expression in ("stream < 9", "stream >= 0", "1 > stream", "-5 < stream < 9"):
        assert compile_skip(expression)(made) is False
    assert compile_skip("stream != 1")(made) is True


def test_an_open_request_has_no_outcome() -> None:
    """A line that is written when the request arrives may be skipped, too."""
    made = record()
    made.outcome = None
    assert compile_skip('outcome != "COMPLETE"')(made) is True


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "column 1: expected a condition"),
        ("statu < 400", "column 1: unknown name statu; did you mean status?"),
        ("status < 400 and pth == ''", "column 18: unknown name pth; did you mean path?"),
        ("  zzzz == 1", "column 3: unknown name zzzz; there are status, "),
        ("status", "column 1: expected a condition, such as status < 400; this is a number"),
        ("status < 400 or path", "column 17: expected a condition"),
        ("not path", "column 5: expected a condition"),
        ('status < "400"', "column 10: a number is compared with text"),
        ("'é' == path and status == ''", "column 27: a number is compared with text"),
        ("status in 200", "column 11: expected a list such as (404, 410)"),
        ("status in ('200',)", "column 12: expected a number; this is text"),
        ("status in (200) == 1", "column 12: expected a list"),
        ("status in (200,) == 1", "column 11: nothing can be compared after in"),
        ('outcome == "COMPLET"', "column 12: outcome is never 'COMPLET'; did you mean COMPLETE?"),
        ('"h4" == protocol', "column 1: protocol is never 'h4'"),
        ("status <", "column 9: "),
        ("status = 400", "column 8: invalid syntax; there are == "),
        ("status && 1", "column 9: invalid syntax"),
        ("path == 'abc", "column 9: unterminated string literal"),
        ("status is 400", "column 11: is compares identities; use == or !="),
        ("(status < 400) == True", "column 2: only names, numbers"),
        ("True == True", "column 1: a condition is not compared"),
        ("status + 1 < 400", "column 1: only names, numbers"),
        ("status < 1e999", "column 10: this number is too large"),
        ("status < -path", "column 10: only names"),
        ("status < None", "column 10: only names"),
        ("method.upper() == 'GET'", "column 1: only the methods startswith(), "),
        ("len(path) > 5", "column 1: only the methods"),
        ("status.startswith('4')", "column 1: startswith() needs text; this is a number"),
        ("path.startswith(1)", "column 17: expected text; this is a number"),
        ("path.startswith()", "column 1: startswith() takes one text"),
        ("path.startswith('a', 1)", "column 1: startswith() takes one text"),
        ("path.lower('a') == ''", "column 1: lower() takes nothing"),
        ("path.__class__ == 1", "column 1: only names"),
        ("[p for p in path]", "column 1: only names"),
        ("(lambda: 1)() == 1", "column 1: only the methods"),
        ("__import__('os').system('true')", "column 1: only the methods"),
        ("f'{path}' == ''", "column 1: only names"),
        ("x := 5", "column "),
        ("status < 400; 1", "column 13: "),
        ("(" * 1500, "column "),
        ("not " * 490 + "True", "column 1: "),
        ("status < 4" + "0" * 5000, "column 2001: longer than"),
        ("a\0b", "column "),
    ],
)
def test_what_it_refuses(expression: str, complaint: str) -> None:
    """With the column and the reason, in one line."""
    with pytest.raises(SkipError) as caught:
        compile_skip(expression)
    assert str(caught.value).startswith(complaint)
    assert len(str(caught.value).splitlines()) == 1


SIGNS = ["(", ")", ",", "<", "==", "-", ".", "*", "[", "]", ".lower()", ".startswith('/')"]
KEYWORDS = ["and", "or", "not", "in", "True", "lambda", "import", "if", "else"]
WORDS = st.sampled_from([*NAMES, *SIGNS, *KEYWORDS, "400", "'a'", "'GET'"])


@given(st.lists(WORDS, max_size=12))
def test_what_is_taken_cannot_fail(words: list[str]) -> None:
    """An expression is refused when it is compiled, or answers for every record."""
    try:
        skip = compile_skip(" ".join(words))
    except SkipError as error:
        assert str(error).startswith("column ")  # noqa: PT017 - some are taken
        return
    for status in (0, 200, 500):
        assert skip(record(status)) in (True, False)
