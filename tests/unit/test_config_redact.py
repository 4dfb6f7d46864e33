"""`[log.redact]`: lists of names, with defaults that the log itself has."""

from __future__ import annotations

import pytest

from h2log.access.redaction import DEFAULT, Redaction
from h2log.config import RedactSettings, build, load
from h2log.errors import UsageError


def test_the_defaults_are_those_of_the_log() -> None:
    """Whoever sets nothing has what `compile` does without being told."""
    redact = build({}).log.redact
    assert redact == RedactSettings()
    assert (redact.query, redact.headers) == (DEFAULT.query, DEFAULT.headers)


def test_a_list_replaces_the_default() -> None:
    """Each for itself; an empty one is empty."""
    redact = build({"log": {"redact": {"query": ["country"], "headers": []}}}).log.redact
    assert (redact.query, redact.headers) == (("country",), ())
    redact = build({"log": {"redact": {"headers": ["x-own"]}}}).log.redact
    assert (redact.query, redact.headers) == (DEFAULT.query, ("x-own",))
    assert Redaction(redact.query, redact.headers).field("x-own")("a") == "REDACTED"


def test_a_variable_is_a_list_in_json() -> None:
    """In each way of writing it; what is in force can be shown."""
    for name in ("H2LOG_LOG_REDACT_QUERY", "H2LOG_LOG__REDACT__QUERY"):
        loaded = load(environ={name: '["token", "x-own"]'}, folder="/nowhere")
        assert loaded.settings.log.redact.query == ("token", "x-own")
        shown = {value.key: value for value in loaded.values()}
        assert shown["log.redact.query"].text == '["token", "x-own"]'
        assert shown["log.redact.query"].source == f"environment {name}"
        assert shown["log.redact.headers"].value == list(DEFAULT.headers)


@pytest.mark.parametrize("value", ["token", 5, [5], [""], ["-"], ["token", "[]"], {"a": 1}, None])
def test_what_is_no_list_of_names_is_refused(value: object) -> None:
    """By the key, with what was expected."""
    with pytest.raises(
        UsageError, match=r"^settings: log\.redact\.query: expected a list of names"
    ):
        build({"log": {"redact": {"query": value}}})


def test_a_variable_that_is_no_json_is_refused() -> None:
    """With the place in it."""
    with pytest.raises(
        UsageError, match=r'QUERY: a list is JSON here, such as \["a", "b"\]: line 1'
    ):
        load(environ={"H2LOG_LOG_REDACT_QUERY": "token, sid"}, folder="/nowhere")
