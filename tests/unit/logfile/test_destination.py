"""What a log's path means."""

from __future__ import annotations

import pytest

from h2log.errors import UsageError
from h2log.logfile.applog import DAILY, AppLog
from h2log.logfile.destination import Destination, Kind, destination, kind_of
from h2log.logfile.files import LogFile
from h2log.logfile.loggers import LoggerTarget
from h2log.logfile.rotation import Rotation
from h2log.logfile.syslog import SyslogTarget
from h2log.logfile.writer import LogWriter

ROTATION = Rotation.of(size="1MB")


@pytest.mark.parametrize(
    ("path", "kind", "made"),
    [
        ("logs/access.log", "file", LogFile),
        ("/dev/null", "file", LogFile),
        ("./syslog:", "file", LogFile),
        ("./logger:x", "file", LogFile),
        ("access:8443.log", "file", LogFile),
        ("logs:/b", "file", LogFile),
        ("-", "stream", LogFile),
        ("&2", "stream", LogFile),
        ("syslog:", "syslog", SyslogTarget),
        ("syslog+tcp://logs", "syslog", SyslogTarget),
        ("logger:shop", "logger", LoggerTarget),
    ],
)
def test_kinds(path: str, kind: Kind, made: type[Destination]) -> None:
    """By how it begins; all of them are written to in the same way."""
    assert kind_of(path) == kind
    found = destination(path)
    assert type(found) is made
    assert found.current.endswith(path.removeprefix("./")) or kind == "stream"
    assert (found.due, found.rotations, found.reopened) == (float("inf"), 0, 0)
    assert (found.failures, found.cut, found.lost, found.descriptor) == (0, 0, b"", -1)


@pytest.mark.parametrize("path", ["syslog:", "syslog://logs", "logger:shop"])
def test_only_files_rotate(path: str) -> None:
    """And have a mode: where there is no file, such a rule is a mistake."""
    with pytest.raises(UsageError, match=r": only files rotate; leave out rotate, or write to a f"):
        LogWriter(path, str, rotation=ROTATION)
    with pytest.raises(UsageError, match=r": only files have a mode; leave out mode, or write to"):
        LogWriter(path, str, file_mode=0o600)


def test_standard_output_takes_any_rule() -> None:
    """As `log.app` has its ten days, whatever its path."""
    assert isinstance(destination("-", ROTATION, mode=0o600), LogFile)


@pytest.mark.parametrize(
    "path", ["http://logs", "file:///tmp/x", "tcp://logs:601", "SYSLOG://logs", "syslogd://logs"]
)
def test_urls_of_nothing(path: str) -> None:
    """They are no files: somebody meant something else."""
    with pytest.raises(UsageError) as caught:
        LogWriter(path, str)
    assert str(caught.value) == (
        f"{path}: no log goes there; expected a file, -, &2, syslog:, syslog://HOST, "
        "syslog+tcp://HOST, syslog+tls://HOST or logger:NAME"
    )


def test_the_applications_log() -> None:
    """It may go to syslog, without its ten days of files; to a logger it would come back."""
    for rotation in (DAILY, Rotation.of(every="daily", keep="10", timezone="local"), None):
        AppLog("syslog://127.0.0.1", rotation=rotation)
    with pytest.raises(UsageError, match="only files rotate"):
        AppLog("syslog://127.0.0.1", rotation=ROTATION)
    with pytest.raises(UsageError, match="has the records of all loggers, its own would come back"):
        AppLog("logger:shop")
