"""An application's tokens and formats: called as they can be, and their failures told once."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from h2log.access.formats import compile
from h2log.access.own import failures
from h2log.access.record import AccessRecord
from h2log.access.tokens import token
from h2log.errors import UsageError
from tests.access.records import record


def test_a_token_may_take_the_record_alone() -> None:
    """Its function has one argument or two; the brackets belong to those of two."""
    token("own-alone", lambda record: record.status)
    token("own-both", lambda record, argument: f"{record.status}{argument}")
    assert compile(":own-alone")(record()) == "200\n"
    assert compile(":own-both[x]")(record()) == "200x\n"
    with pytest.raises(UsageError, match=r"bad argument of :own-alone\[x\].*takes no argument"):
        compile(":own-alone[x]")


@pytest.mark.parametrize("function", [lambda: 1, lambda a, b, c: 1, 5])
def test_a_token_that_cannot_be_called(function: Any) -> None:
    """It is refused when it is defined, and not in every line."""
    with pytest.raises(UsageError, match="token :own-wrong: expected a function"):
        token("own-wrong", function)


def test_a_format_that_cannot_be_called() -> None:
    """The same of a function that makes lines."""
    wrong: Any = lambda: "x"  # noqa: E731
    with pytest.raises(UsageError, match=r"expected a function of \(record\)"):
        compile(wrong)


@pytest.mark.parametrize("error", [KeyError("tenant"), SystemExit(3)], ids=type)
def test_the_first_failure_is_told(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback, once; all are counted, and every line is there."""

    def fails(record: AccessRecord) -> str:
        raise error

    kind = type(error).__name__
    name = f"own-{kind.lower()}"
    token(name, fails)
    fails.__qualname__ = f"shop.{name}"
    by_token, by_format = compile(f":{name} :status"), compile(fails)
    with caplog.at_level(logging.ERROR, "h2log.log"):
        for _ in range(3):
            assert by_token(record()) == f"!{kind} 200\n"
            assert by_format(record()).endswith(f" error={kind}\n")
    first, second = caplog.records
    assert first.getMessage().startswith(f"the token :{name} failed: {kind}(")
    assert second.getMessage().startswith(f"the format shop.{name} failed: {kind}(")
    assert first.exc_info is not None
    assert first.exc_info[1] is error
    assert failures[f"token :{name}"] == failures[f"format shop.{name}"] == 3
