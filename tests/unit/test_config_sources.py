"""Files and the environment: what they set, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.config import Loaded, all_keys, build, load
from h2log.config.sources import _key, _plain_names, environment, find_file, read_file
from h2log.errors import UsageError


def refusal(name: str, content: str | bytes, folder: Path) -> str:
    """Return what reading a file complains of, without the folder."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as caught:
        read_file(str(path))
    return str(caught.value).replace(f"{folder}/", "")


# Files


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    """By the suffix; a byte order mark, as some editors leave it, is none of the content."""
    (tmp_path / "a.toml").write_text('[[log.access]]\npath = "é"\n[server]\nport = 1\n')
    tree = {"log": {"access": [{"path": "é"}]}, "server": {"port": 1}}
    (tmp_path / "a.JSON").write_text("\ufeff" + json.dumps(tree))
    assert read_file(str(tmp_path / "a.toml")) == tree == read_file(str(tmp_path / "a.JSON"))


@pytest.mark.parametrize(
    ("name", "content", "start"),
    [
        ("h2log.toml", "[server]\nport 1\n", "line 2, column 6: expected '=' after a key"),
        ("h2log.toml", "[server]\nport = ", "line 2, column 8: invalid value"),
        ("h2log.toml", "[server]\nport = 1\nport = 2\n", "line 3, column 9: cannot overwrite"),
        ("h2log.toml", "[server", "line 1, column 8: "),
        ("h2log.toml", b"# \xc3\xa9\n# \xe9\n", "line 2, column 3: is not UTF-8"),
        ("h2log.toml", "a = 1979-99-01", "line 1, column "),
        ("h2log.json", '{"server": {\n  "port": }}', "line 2, column 11: expecting value"),
        ("h2log.json", "", "line 1, column 1: expecting value"),
        ("h2log.json", '{"a": "NaN",\n "b": NaN}', "line 2, column 7: the word NaN is no JSON"),
        ("h2log.json", '["\\"NaN", -Infinity]', "line 1, column 11: the word -Infinity is no JSON"),
        ("h2log.json", '{"server": {"port": 1, "port": 2}}', 'the key "port" stands twice'),
        ("h2log.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_syntax_error_has_its_place(
    tmp_path: Path, name: str, content: str | bytes, start: str
) -> None:
    """File, line, column and what is wrong there, in one line."""
    text = refusal(name, content, tmp_path)
    assert text.startswith(f"{name}: {start}")
    assert len(text.splitlines()) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a folder, or a name that no file has."""
    for name, words in [("nothing.toml", "no file"), (".", "is a directory"), ("a\0", "null")]:
        with pytest.raises(UsageError, match=words):
            read_file(f"{tmp_path}/{name}")


@given(st.binary(max_size=200), st.sampled_from([".toml", ".json"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    """A file of anything is a mistake that is told, never a traceback."""
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    try:
        load(str(path))
    except UsageError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - some contents are right


def test_the_file_of_the_folder_is_found(tmp_path: Path) -> None:
    """TOML or JSON; two are one too many."""
    assert find_file(tmp_path) is None
    (tmp_path / "h2log.json").write_text("{}")
    assert find_file(tmp_path) == str(tmp_path / "h2log.json")
    (tmp_path / "h2log.toml").write_text("")
    with pytest.raises(UsageError, match=r"h2log\.toml and h2log\.json are both here"):
        find_file(tmp_path)


# The environment


def values(**environ: str) -> dict[str, Any]:
    """Return what variables set, which are right."""
    layers, problems = environment({f"H2LOG_{name}": text for name, text in environ.items()})
    assert problems == []
    assert len(layers) == 1
    return layers[0].values


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("SERVER_PORT", "9000", {"server": {"port": 9000}}),
        ("SERVER__PORT", " 9000 ", {"server": {"port": 9000}}),
        ("SERVER_HOST", "::1", {"server": {"host": "::1"}}),
        ("SERVER_HOST", "1", {"server": {"host": "1"}}),
        ("SERVER_INSECURE", "true", {"server": {"insecure": True}}),
        ("SERVER_INSECURE", "Off", {"server": {"insecure": False}}),
        ("SERVER_INSECURE", "0", {"server": {"insecure": False}}),
        ("SERVER_DRAIN_TIMEOUT", "1.5", {"server": {"drain_timeout": 1.5}}),
        ("SERVER__DRAIN_TIMEOUT", "10s", {"server": {"drain_timeout": "10s"}}),
        ("LIMITS_MAX_STREAMS", "200", {"limits": {"max_streams": 200}}),
        ("LIMITS__SEND_BUFFER", "2MB", {"limits": {"send_buffer": "2MB"}}),
        ("LIMITS__BUDGETS__PING__BURST", "5", {"limits": {"budgets": {"ping": {"burst": 5}}}}),
        ("LIMITS_BUDGETS", "{}", {"limits": {"budgets": {}}}),
        ("LOG_APP_LEVEL", "debug", {"log": {"app": {"level": "debug"}}}),
        ("LOG_ACCESS", '[{"path": "-"}]', {"log": {"access": [{"path": "-"}]}}),
        ("LOG_ACCESS_FORMAT", "dev", {"log": {"access": {"format": "dev"}}}),
        ("LOG_ACCESS_FSYNC", "rotation", {"log": {"access": {"fsync": "rotation"}}}),
        ("LOG_ACCESS_FSYNC", "100", {"log": {"access": {"fsync": 100}}}),
        ("LOG_ACCESS_ROTATE_EVERY", "3600", {"log": {"access": {"rotate": {"every": 3600}}}}),
        ("LOG_ACCESS_ROTATE_EVERY", "6h", {"log": {"access": {"rotate": {"every": "6h"}}}}),
        ("LOG_ACCESS_ROTATE_KEEP", "30d", {"log": {"access": {"rotate": {"keep": "30d"}}}}),
        ("LOG_SESSION_ROTATE", '{"size": 9}', {"log": {"session": {"rotate": {"size": 9}}}}),
    ],
)
def test_a_variable_sets_a_key(name: str, text: str, wanted: dict[str, Any]) -> None:
    """With single or double underscores; the text is what the key's type asks for."""
    assert values(**{name: text}) == wanted


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("SERVER_PROT", "1", "unknown key; did you mean H2LOG_SERVER_PORT?"),
        ("SERVER__PROT", "1", "unknown key; did you mean H2LOG_SERVER__PORT?"),
        ("PORT", "9000", "unknown key; did you mean H2LOG_ADMIN_PORT?"),
        ("SERVER_", "1", "unknown key; "),
        ("ÄÖÜ" * 9, "1", "unknown key; keys begin with H2LOG_SERVER_, H2LOG_APP_, H2LOG_ADMIN_, "),
        ("SERVER__PORT__X", "1", "unknown key; "),
        ("LOG_ACCESS", "logs/a.log", "a table is JSON here: line 1, column 1: expecting value"),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str, words: str) -> None:
    """An unknown one with the nearest, and a table that is no JSON with the place."""
    layers, [problem] = environment({f"H2LOG_{name}": text})
    assert layers == []
    assert problem.startswith(f"environment H2LOG_{name}: {words}")


def test_others_variables_are_left_alone() -> None:
    """Of other programs, the file's name, and Kubernetes's of a service called h2log."""
    environ = {
        "PATH": "/bin",
        "H2LOG": "1",
        "h2log_server_port": "1",
        "H2LOG_CONFIG": "a.toml",
        "H2LOG_SERVICE_HOST": "10.0.0.1",
        "H2LOG_SERVICE_PORT_HTTPS": "443",
        "H2LOG_PORT": "tcp://10.0.0.1:443",
        "H2LOG_PORT_443_TCP_ADDR": "10.0.0.1",
        "H2LOG_SERVER_PORT": "tcp://10.0.0.1:443",
    }
    assert environment(environ) == ([], [])


def test_every_key_has_a_variable_with_single_underscores() -> None:
    """No two keys are spelled alike; if some were, both full forms would be named."""
    assert [found for found in _plain_names(all_keys()).values() if len(found) > 1] == []
    with pytest.raises(ValueError, match="use H2LOG_A__B_C or H2LOG_A_B__C"):
        _key("H2LOG_A_B_C", _plain_names(["a", "a.b_c", "a_b", "a_b.c"]))


@given(st.text(max_size=30), st.sampled_from([key for key in all_keys() if "." in key]))
def test_any_text_of_a_variable_is_taken_or_refused(text: str, key: str) -> None:
    """With the name of the variable, in one line."""
    name = "H2LOG_" + key.replace("[]", "").replace(".", "__").upper()
    try:
        load(environ={name: text}, folder="/nonexistent")
    except UsageError as error:
        assert str(error).startswith(f"environment {name}: ")  # noqa: PT017 - many are right
        assert len(str(error).splitlines()) == 1  # noqa: PT017


# One upon the other


NAMES = st.text("abcdefghij", min_size=1, max_size=8)
OUTPUT = st.fixed_dictionaries(
    {"path": NAMES},
    optional={
        "format": NAMES,
        "skip": NAMES,
        "flush_interval": st.floats(0.001, 10),
        "fsync": st.one_of(st.sampled_from(["never", "rotation"]), st.integers(1, 1000)),
        "rotate": st.fixed_dictionaries(
            {"size": st.integers(1, 2**40)}, optional={"keep": st.integers(0, 99)}
        ),
    },
)
TREE = st.fixed_dictionaries(
    {},
    optional={
        "server": st.fixed_dictionaries(
            {}, optional={"port": st.integers(0, 65535), "insecure": st.booleans(), "host": NAMES}
        ),
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "max_streams": st.integers(1, 1000),
                "budgets": st.dictionaries(
                    NAMES,
                    st.fixed_dictionaries({"burst": st.integers(1, 9), "rate": st.floats(0, 9)}),
                    max_size=2,
                ),
            },
        ),
        "log": st.fixed_dictionaries(
            {}, optional={"access": st.lists(OUTPUT, max_size=3, unique_by=lambda o: o["path"])}
        ),
    },
)


@given(TREE)
def test_a_tree_written_out_is_the_same_tree(tree: dict[str, Any]) -> None:
    """Settings survive being written as builtins and read again."""
    built = build(tree)
    assert build(msgspec.to_builtins(built)) == built


@given(TREE, st.data())
def test_a_key_at_a_time_in_the_environment_is_the_whole_tree(
    tree: dict[str, Any], data: st.DataObject
) -> None:
    """Whether tables are given as JSON or by key, in variables or in a file."""
    environ = {}
    for section, table in tree.items():
        if data.draw(st.booleans()):
            environ[f"H2LOG_{section.upper()}"] = json.dumps(table)
        else:
            for key, value in table.items():
                text = value if isinstance(value, str) else json.dumps(value)
                environ[f"H2LOG_{section.upper()}__{key.upper()}"] = text
    assert load(environ=environ, folder="/nonexistent").settings == build(tree)


@given(TREE, TREE)
def test_every_value_in_force_has_its_source(
    tmp_path_factory: pytest.TempPathFactory, below: dict[str, Any], above: dict[str, Any]
) -> None:
    """What the environment gives is its own; else the file's; else the default."""
    path = tmp_path_factory.getbasetemp() / "below.json"
    path.write_text(json.dumps(below))
    environ = {f"H2LOG_{section.upper()}": json.dumps(table) for section, table in above.items()}
    lower = given_by(load(str(path)))
    if "access" in above.get("log", {}):  # a list is replaced, not merged
        lower = {key: v for key, v in lower.items() if not key.startswith("log.access")}
    upper = given_by(load(environ=environ, folder="/nonexistent"))
    default = {v.key: v.value for v in load(folder="/nonexistent").values()}
    loaded = load(str(path), environ)
    for key, value, source, _ in loaded.values():
        if key in upper:
            assert (value, source) == (upper[key], f"environment H2LOG_{key.split('.')[0].upper()}")
        elif key in lower:
            assert (value, source) == (lower[key], str(path))
        else:
            assert source == "default"
            assert default.get(key, value) == value
    assert upper.keys() <= {v.key for v in loaded.values()}


def given_by(loaded: Loaded) -> dict[str, Any]:
    """Return the values that are not the defaults."""
    return {v.key: v.value for v in loaded.values() if v.source != "default"}
