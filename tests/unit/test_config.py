"""Settings: defaults, and wrong values that name themselves."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from h2log.config import (
    AccessOutput,
    LogSettings,
    Rotation,
    ServerSettings,
    Settings,
    TlsSettings,
    all_keys,
    build,
)
from h2log.errors import UsageError


def refusal(values: Any, source: str = "h2log.toml") -> str:
    """Return what `build` complains of, which is one line."""
    with pytest.raises(UsageError) as caught:
        build(values, source)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def nested(key: str, value: object) -> dict[str, Any]:
    """Return the tables in which `key` has `value`; `[0]` is the first of a list."""
    for part in reversed(key.split(".")):
        name, list_, _ = part.partition("[0]")
        value = {name: [value] if list_ else value}
    assert isinstance(value, dict)
    return value


def test_nothing_given_is_every_default() -> None:
    """An empty tree, and empty sections, are the defaults."""
    assert build({}) == Settings()
    assert build({"server": {}, "tls": {}, "limits": {}, "log": {}}) == Settings()


def test_the_defaults_are_these() -> None:
    """What the documentation says of an h2log without settings."""
    server, log, limits = ServerSettings(), LogSettings(), Settings().limits
    assert (server.host, server.port, server.insecure) == ("127.0.0.1", 8443, False)
    assert server.drain_timeout == 10
    assert TlsSettings().cert == "certs/localhost.pem"
    assert TlsSettings().key == "certs/localhost-key.pem"
    assert (log.app.level, log.app.path, log.level) == ("warning", "-", "warning")
    assert (log.app.rotate.every, log.app.rotate.keep) == ("daily", 10)
    [output] = log.outputs
    assert (output.path, output.format, output.skip) == ("logs/access.log", "h2log", "")
    assert output.rotate.rules() is None
    assert (output.overload, output.fsync, log.session.path) == ("drop", "never", "")
    assert (limits.max_streams, limits.max_header_bytes) == (100, 32768)
    assert limits.connection_window >= limits.stream_window


def test_the_defaults_would_be_accepted() -> None:
    """Every default, written out, is a valid value of its key."""
    assert build(msgspec.to_builtins(Settings())) == Settings()


def test_what_is_given_is_taken_and_the_rest_stays() -> None:
    """One key changes one value."""
    built = build({"server": {"port": 0, "drain_timeout": 3}, "log": {"app": {"path": "a"}}})
    assert (built.server.port, built.server.drain_timeout, built.log.app.path) == (0, 3.0, "a")
    assert (built.server.host, built.limits) == ("127.0.0.1", Settings().limits)


def test_there_are_any_number_of_outputs() -> None:
    """Each table of `log.access` is one, with its own defaults; an empty list is none."""
    assert build({"log": {"access": []}}).log.outputs == ()
    built = build({"log": {"access": [{"path": "a"}, {"path": "-", "skip": "status < 400"}]}})
    assert built.log.outputs == (
        AccessOutput(path="a"),
        AccessOutput(path="-", skip="status < 400"),
    )


def test_rotation_says_what_differs() -> None:
    """By time or by size; keeping and compressing alone rotate nothing."""
    assert Rotation(keep=10, compress="gzip").rules() is None
    rules = Rotation(every="daily", keep="30d").rules()
    assert rules is not None
    assert (rules["every"], rules["size"], rules["keep"], rules["compress"]) == (
        "daily",
        None,
        "30d",
        None,
    )
    for seconds in (3600, 0.5):
        rules = build({"log": {"app": {"rotate": {"every": seconds}}}}).log.app.rotate.rules()
        assert rules is not None and rules["every"] == seconds
    by_size = build({"log": {"app": {"rotate": {"every": "never", "size": "5MB"}}}})
    rules = by_size.log.app.rotate.rules()
    assert rules is not None
    assert (rules["every"], rules["size"], rules["keep"]) == (None, 5 * 2**20, 10)


def test_a_mode_is_octal() -> None:
    """As chmod has it."""
    assert AccessOutput().file_mode is None
    assert build({"log": {"access": [{"mode": "640"}]}}).log.outputs[0].file_mode == 0o640


def test_sizes_and_durations_may_have_units() -> None:
    """Wherever bytes and seconds are meant, and only there."""
    built = build(
        {
            "server": {"drain_timeout": "1m30s"},
            "limits": {"send_buffer": "2MB", "static_cache": "0B", "idle_timeout": "250ms"},
        }
    )
    assert built.server.drain_timeout == 90
    assert (built.limits.send_buffer, built.limits.static_cache) == (2 * 2**20, 0)
    assert built.limits.idle_timeout == 0.25


def test_settings_do_not_change() -> None:
    """A validated value is final."""
    settings = Settings()
    with pytest.raises(AttributeError):
        settings.server.port = 1  # type: ignore[misc]  # the error is the point


WRONG: list[tuple[str, object, str]] = [
    ("server.host", 7, "expected str, got"),
    ("server.host", None, "expected str, got"),
    ("server.port", "8443", "expected int, got"),
    ("server.port", True, "expected int, got"),
    ("server.port", 80.5, "expected int, got"),
    ("server.port", -1, ">= 0"),
    ("server.port", 65536, "<= 65535"),
    ("server.port", 2**70, "<= 65535"),
    ("server.insecure", "yes", "expected bool, got"),
    ("server.insecure", 1, "expected bool, got"),
    ("server.backlog", 0, ">= 1"),
    ("server.drain_timeout", -0.1, ">= 0"),
    ("server.drain_timeout", "10", 'expected seconds or a duration such as "10s", got'),
    ("server.drain_timeout", "10MB", "expected seconds or a duration"),
    ("server.drain_timeout", True, "expected seconds or a duration"),
    ("server.drain_timeout", math.inf, "expected a finite number"),
    ("server.host", "a\0b", "NUL"),
    ("server.drain_timeout", math.nan, ">= 0"),
    ("tls.cert", False, "expected str, got"),
    ("tls.key", [], "expected str, got"),
    ("limits.max_streams", 0, ">= 1"),
    ("limits.max_connections", 0, ">= 1"),
    ("limits.max_header_bytes", 1023, ">= 1024"),
    ("limits.max_header_fields", 0, ">= 1"),
    ("limits.max_body_bytes", -1, ">= 0"),
    ("limits.stream_window", 1023, ">= 1024"),
    ("limits.stream_window", 2**31, "<= 2147483647"),
    ("limits.connection_window", 65534, ">= 65535"),
    ("limits.connection_window", 2**31, "<= 2147483647"),
    ("limits.send_buffer", 1023, ">= "),
    ("limits.send_buffer", "1KB", ">= 524288"),
    ("limits.send_buffer", "much", 'expected bytes or a size such as "64KB"'),
    ("limits.send_buffer", "10s", 'expected bytes or a size such as "64KB"'),
    ("limits.static_cache", -1, ">= 0"),
    *(
        (f"limits.{name}_timeout", value, "> 0")
        for name in ("handshake", "preface", "settings", "header", "body", "idle", "stall")
        for value in (0, -1, math.nan)
    ),
    ("log.app.level", 10, "expected one of debug, info, "),
    ("log.app.level", "loud", "expected one of debug, info, "),
    ("log.app.path", "", "expected a path, got"),
    ("log.session.format", "", "expected a text, got"),
    ("log.session.flush_interval", 0, "> 0"),
    ("log.access", 1, "expected a list of tables ([[log.access]]), got"),
    ("log.access", "logs/access.log", "expected a list of tables ([[log.access]]), got"),
    ("log.access", {"path": "a"}, "expected a list of tables ([[log.access]]), got"),
    ("log.access[0]", "a", "expected a table, got"),
    ("log.access[0].path", "", "expected a path, got"),
    ("log.access[0].format", 7, "expected str, got"),
    ("log.access[0].skip", True, "expected str, got"),
    ("log.access[0].flush_interval", 0, "> 0"),
    ("log.access[0].max_buffer", 65535, ">= 65536"),
    ("log.access[0].overload", "wait", "expected one of drop, block, got"),
    ("log.access[0].fsync", "often", 'expected "never", "rotation" or milliseconds, got'),
    ("log.access[0].fsync", 0, 'expected "never", "rotation" or milliseconds, got'),
    ("log.access[0].mode", "rw", 'expected an octal mode such as "640", got'),
    ("log.access[0].mode", 640, 'expected an octal mode such as "640", got'),
    ("log.access[0].rotate", "daily", "expected a table, got"),
    ("log.access[0].rotate.every", 0, 'expected "daily" or the like, seconds from 0.1 on, a span'),
    ("log.access[0].rotate.every", 0.05, 'expected "daily" or the like, seconds from 0.1 on'),
    ("log.access[0].rotate.every", 2**31, 'expected "daily" or the like, seconds from 0.1 on'),
    ("log.access[0].rotate.every", True, 'expected "daily" or the like, seconds from 0.1 on'),
    ("log.access[0].rotate.every", [5], 'expected "daily" or the like, seconds from 0.1 on'),
    ("log.access[0].rotate.size", -1, ">= 0"),
    ("log.access[0].rotate.keep", -1, "expected a count, an age"),
    ("log.access[0].rotate.keep", True, "expected a count, an age"),
    ("log.access[0].rotate.compress", "zip", "expected one of none, gzip, zstd, got"),
    ("limits.budgets", 5, "expected a table, got"),
    ("limits.budgets.ping", 5, "expected a table, got"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_value_names_its_key(key: str, value: object, expected: str) -> None:
    """The line has the source, the key's full name, what was expected and what was found."""
    text = refusal(nested(key, value))
    assert text.startswith(f"h2log.toml: {key}: ")
    assert expected in text
    finite = not isinstance(value, float) or math.isfinite(value)
    assert text.endswith(f"got {json.dumps(value) if finite else value}")


@pytest.mark.parametrize("key", ["server.port", "limits.max_streams", "log.session.format"])
def test_a_table_where_a_value_belongs_is_refused(key: str) -> None:
    """It is named by its key, and called what it is."""
    text = refusal(nested(key, {"a": 1}))
    assert text.startswith(f"h2log.toml: {key}: ")
    assert 'got {"a": 1}' in text


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("server.prot", "did you mean server.port?"),
        ("server.Port", "did you mean server.port?"),
        ("limits.max-streams", "did you mean limits.max_streams?"),
        ("sever", "did you mean server?"),
        ("port", "did you mean server.port?"),
        ("server.cert", "did you mean tls.cert?"),
        ("log.level", "did you mean log.app.level?"),
        ("log.flush_interval", "did you mean log.access[].flush_interval?"),
        ("log.access[0].formt", "did you mean log.access[0].format?"),
        ("log.access[0].rotate.evry", "did you mean log.access[0].rotate.every?"),
        ("limits.budgets.ping.brust", "did you mean limits.budgets.ping.burst?"),
        ("tls.zzz", "there are cert, key"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(key: str, advice: str) -> None:
    """A misspelled key is an error that says where it stands, and what was probably meant."""
    text = refusal(nested(key, {}), "command line")
    assert text.startswith(f"command line: {key}: unknown key; {advice}")


def test_a_key_with_odd_characters_is_quoted() -> None:
    """Whatever a file calls a key, the complaint is one harmless line."""
    assert refusal({"a\n\x1b]0;b": 1}).startswith('h2log.toml: "a\\n\\u001b]0;b": unknown key; ')


def test_what_has_no_default_must_be_there() -> None:
    """A budget has two numbers."""
    text = refusal({"limits": {"budgets": {"ping": {"burst": 1}}}})
    assert text == "h2log.toml: limits.budgets.ping.rate: is missing"


def test_several_problems_are_counted() -> None:
    """The first is told, and how many more there are."""
    text = refusal({"server": {"port": "x", "host": 5}, "tls": 5})
    assert text == 'h2log.toml: server.port: expected int, got "x" (and 2 more problems)'


def test_two_logs_of_one_file_are_refused() -> None:
    """Each would rotate the other's lines away."""
    outputs = [{"path": "a/../b"}, {"path": "-"}, {"path": "&2"}, {"path": "b"}]
    text = refusal({"log": {"access": outputs}})
    assert text.startswith("h2log.toml: log.access[3].path: is the file of log.access[0].path, too")
    text = refusal({"log": {"access": [{"path": "a"}], "app": {"path": "a"}}})
    assert "log.app.path" in text


def test_what_other_rooms_compile_is_theirs_to_check() -> None:
    """A check gets each text of its name, and its complaint is told with the key."""
    asked = []

    def refuse(text: str) -> None:
        asked.append(text)
        raise UsageError(f"skip: column 1: no {text}")

    with pytest.raises(UsageError) as caught:
        build({"log": {"access": [{}, {"path": "b", "skip": "x"}]}}, "f", {"skip": refuse})
    assert str(caught.value) == "f: log.access[1].skip: column 1: no x"
    assert asked == ["x"]


def test_a_long_value_is_cut_in_the_complaint() -> None:
    """The line stays readable."""
    assert len(refusal({"server": {"port": "x" * 10_000}})) < 200


def test_the_keys_are_in_the_order_of_the_tree() -> None:
    """Tables too."""
    keys = list(all_keys())
    assert keys[:2] == ["server", "server.host"]
    assert keys.index("log.access[].path") < keys.index("log.access[].rotate.every")
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("section", ["server", "tls", "limits", "log"])
def test_a_section_is_a_table(section: str) -> None:
    """A value where a table belongs is named by the table's name."""
    text = refusal({section: 5})
    assert text.startswith(f"h2log.toml: {section}: expected a table, got 5")
    assert "5" in text


@pytest.mark.parametrize("tree", [None, [], 5, "server"])
def test_the_tree_is_a_table(tree: object) -> None:
    """Anything else than a table is refused, too."""
    assert "expected a table" in refusal(tree)


def test_a_key_that_is_no_text_is_refused() -> None:
    """As JSON and TOML cannot have it, but a program can."""
    assert refusal({"server": {5: 1}}).startswith("h2log.toml: ")
