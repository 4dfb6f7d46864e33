"""Settings: defaults, and wrong values that name themselves."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from h2log.config import LogSettings, ServerSettings, Settings, TlsSettings, build
from h2log.errors import UsageError


def refusal(values: Any, source: str = "h2log.toml") -> str:
    """Return what `build` complains of, which is one line."""
    with pytest.raises(UsageError) as caught:
        build(values, source)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


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
    assert (log.access, log.level) == ("logs/access.log", "info")
    assert (limits.max_streams, limits.max_header_bytes) == (100, 32768)
    assert limits.connection_window >= limits.stream_window


def test_the_defaults_would_be_accepted() -> None:
    """Every default, written out, is a valid value of its key."""
    assert build(msgspec.to_builtins(Settings())) == Settings()


def test_what_is_given_is_taken_and_the_rest_stays() -> None:
    """One key changes one value."""
    built = build({"server": {"port": 0, "drain_timeout": 3}, "log": {"access": "-"}})
    assert (built.server.port, built.server.drain_timeout, built.log.access) == (0, 3.0, "-")
    assert (built.server.host, built.limits) == ("127.0.0.1", Settings().limits)


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
    ("server.drain_timeout", "10", "expected float, got"),
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
    ("limits.static_cache", -1, ">= 0"),
    *(
        (f"limits.{name}_timeout", value, "> 0")
        for name in ("handshake", "preface", "settings", "header", "body", "idle", "stall")
        for value in (0, -1, math.nan)
    ),
    ("log.access", 1, "expected str, got"),
    ("log.level", 10, "expected str, got"),
    ("log.level", "loud", "expected one of debug, info, "),
    ("log.flush_interval", 0, "> 0"),
    ("log.max_buffer", 65535, ">= 65536"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_value_names_its_key(key: str, value: object, expected: str) -> None:
    """The line has the source, the key's full name, what was expected and what was found."""
    section, _, name = key.partition(".")
    text = refusal({section: {name: value}})
    assert text.startswith(f"h2log.toml: {key}: ")
    assert expected in text
    assert text.endswith("got nan" if value != value else f"got {json.dumps(value)}")


@pytest.mark.parametrize("key", ["server.port", "limits.max_streams", "log.flush_interval"])
def test_a_table_where_a_value_belongs_is_refused(key: str) -> None:
    """It is named by its key, and called what it is."""
    section, _, name = key.partition(".")
    text = refusal({section: {name: {"a": 1}}})
    assert text.startswith(f"h2log.toml: {key}: ")
    assert 'got {"a": 1}' in text


def test_an_unknown_key_is_named() -> None:
    """A misspelled key is an error that says where it stands and how it is spelled."""
    text = refusal({"server": {"prot": 1}})
    assert text == "h2log.toml: server.prot: unknown key"


def test_an_unknown_section_is_named() -> None:
    """So is a misspelled table."""
    text = refusal({"sever": {}}, "command line")
    assert text.startswith("command line: ")
    assert text == "command line: sever: unknown key"


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
