"""Settings that are right one by one, and wrong together: told by a check as by a start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from h2log.cli.checks import CHECKS
from h2log.config import build, file_problems, load
from h2log.errors import UsageError

DAILY = {"every": "daily"}


def problems(tmp_path: Path, log: dict[str, Any]) -> list[str]:
    """Return what a check says of a file; a start says the first of it."""
    file = tmp_path / "h2log.json"
    file.write_text(json.dumps({"log": log}))
    found = [line.removeprefix(f"{file}: ") for line in file_problems(str(file), CHECKS)]
    if found:
        with pytest.raises(UsageError) as caught:
            load(str(file), checks=CHECKS)
        assert found[0] in str(caught.value)
    else:
        load(str(file), checks=CHECKS)
        build({"log": log}, checks=CHECKS)
    return found


def one(tmp_path: Path, log: dict[str, Any]) -> str:
    """Return the only problem."""
    [found] = problems(tmp_path, log)
    return found


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            {"path": "a.log", "rotate": {"every": "daily", "name": "a.log"}},
            "log.access[0].rotate.name: expected the name of a file other than the log's own",
        ),
        (
            {"path": "logger:shop", "rotate": DAILY},
            "log.access[0].rotate: only files rotate, logger:shop does not; leave it out",
        ),
        (
            {"path": "syslog:", "mode": "640"},
            "log.access[0].mode: only files have a mode, syslog: has none; leave it out",
        ),
        (
            {"path": "a.log", "rotate": {"name": "a-%F.log", "keep": 3}},
            "log.access[0].rotate: has name and keep, but nothing says when the file rotates; "
            'add every, such as "daily", or size, such as "100MB"',
        ),
    ],
)
def test_rules_that_cannot_be_followed(tmp_path: Path, output: Any, said: str) -> None:
    """What the start would refuse, or silently not do, has its key's full name."""
    assert one(tmp_path, {"access": [output]}).startswith(said)


def test_the_applications_log_is_no_logger(tmp_path: Path) -> None:
    """Its own records would come back to it."""
    text = one(tmp_path, {"app": {"path": "logger:shop"}})
    assert text.startswith("log.app.path: the application's log has the records of all loggers")


def test_rotation_can_be_switched_off_by_one_key(tmp_path: Path) -> None:
    """Who says never knows that nothing rotates; the other rules may stay."""
    assert not problems(
        tmp_path, {"access": [{"path": "a.log", "rotate": {"every": "never", "keep": 3}}]}
    )
    assert not problems(tmp_path, {"app": {"path": "a.log", "rotate": {"every": "never"}}})
    assert not problems(tmp_path, {"app": {"path": "syslog:"}})


@pytest.mark.parametrize(("first", "second"), [("-", "-"), ("/dev/stdout", "-"), ("&2", "&2")])
def test_two_logs_on_one_stream(tmp_path: Path, first: str, second: str) -> None:
    """Nobody could tell their lines apart, by whichever of its names it goes."""
    text = one(tmp_path, {"access": [{"path": first}, {"path": second}]})
    assert text.startswith("log.access[1].path: is where log.access[0] writes, too")


def test_h2logs_own_log_shares_standard_error(tmp_path: Path) -> None:
    """Its lines are told from requests' by their looks; and devices take anything."""
    assert not problems(tmp_path, {"access": [{"path": "&2"}, {"path": "-"}]})
    for device in ("/dev/null", "/dev/full"):
        assert not problems(tmp_path, {"access": [{"path": device}, {"path": device}]})


def test_a_link_is_the_file_it_leads_to(tmp_path: Path) -> None:
    """Of the file itself, and of its folder."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "logs")
    (tmp_path / "logs" / "link.log").symlink_to(tmp_path / "logs" / "a.log")
    for path in ("folder/a.log", "logs/link.log", "folder/link.log"):
        outputs = [{"path": str(tmp_path / "logs" / "a.log")}, {"path": str(tmp_path / path)}]
        assert one(tmp_path, {"access": outputs}).startswith(
            "log.access[1].path: is the file of log.access[0].path, too"
        )


@pytest.mark.parametrize("current", ["file", "symlink"])
def test_closed_files_of_one_name(tmp_path: Path, current: str) -> None:
    """Each would compress and delete the other's; in another folder they are others."""
    (tmp_path / "other").mkdir()
    rules = {"every": "daily", "name": "old-%Y-%m-%d.log", "current": current}
    outputs = [
        {"path": str(tmp_path / "a.log"), "rotate": rules},
        {"path": str(tmp_path / "b.log"), "rotate": {**rules, "name": "old-%F.log"}},
        {"path": str(tmp_path / "other" / "b.log"), "rotate": rules},
    ]
    assert one(tmp_path, {"access": outputs}).startswith(
        "log.access[1].rotate.name: names the closed files of log.access[0], too"
    )


def test_a_closed_file_is_nobodys_log(tmp_path: Path) -> None:
    """A name that another log has would be written over by turns."""
    outputs = [{"path": "a.log", "rotate": {"size": "1MB", "name": "b.log"}}, {"path": "b.log"}]
    text = one(tmp_path, {"access": outputs})
    assert text.startswith("log.access[0].rotate.name: can be the file of log.access[1]")
