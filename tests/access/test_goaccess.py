"""GoAccess reads `combined`, `common` and `caddy` without a failed line."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from h2log.access import compile
from h2log.access.record import Outcome
from tests.access.records import record, varied

COUNT = 5000


def report(log: Path, log_format: str, *options: str) -> dict[str, int]:
    """Return GoAccess's general numbers of `log`."""
    goaccess = shutil.which("goaccess")
    if goaccess is None:
        pytest.skip("needs goaccess")
    out = log.with_suffix(".json")
    done = subprocess.run(
        [
            *(
                goaccess,
                str(log),
                f"--log-format={log_format}",
                "--no-progress",
                "--no-global-config",
            ),
            *("--db-path", str(log.parent), "-o", str(out), *options),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    general: dict[str, int] = json.loads(out.read_text())["general"]
    return general


@pytest.mark.parametrize("name", ["combined", "common", "caddy"])
def test_goaccess_reads_every_line(name: str, tmp_path: Path) -> None:
    """Thousands of requests of all kinds, hostile texts among them: each counts, none fails."""
    dice = random.Random(20)
    line = compile(name)
    log = tmp_path / "access.log"
    log.write_text("".join([line(varied(dice)) for _ in range(COUNT)]))
    general = report(log, name.upper())
    assert (general["total_requests"], general["failed_requests"]) == (COUNT, 0)
    assert general["valid_requests"] == COUNT


def test_a_request_without_a_response_is_read_from_caddy(tmp_path: Path) -> None:
    """A client that was gone too early fails no line of `caddy`."""
    line = compile("caddy")
    log = tmp_path / "access.log"
    lost = record(status=0, outcome=Outcome.PEER_LOST)
    log.write_text("".join([line(lost), line(record())]))
    general = report(log, "CADDY")
    assert (general["total_requests"], general["failed_requests"]) == (2, 0)


@pytest.mark.parametrize("name", ["combined", "common", "caddy"])
def test_an_arrival_is_read_like_a_request_without_a_response(name: str, tmp_path: Path) -> None:
    """Lines of requests that have only arrived fail none of the report."""
    dice = random.Random(21)
    line = compile(name)
    log = tmp_path / "access.log"
    log.write_text("".join([line(varied(dice).opening()) for _ in range(100)]))
    general = report(log, name.upper(), "--no-strict-status")
    assert (general["total_requests"], general["failed_requests"]) == (100, 0)


@pytest.mark.parametrize("name", ["combined", "common"])
def test_a_request_without_a_response_is_read_on_request(name: str, tmp_path: Path) -> None:
    """morgan's `-` for the status is no status to GoAccess, unless it is told not to mind."""
    line = compile(name)
    log = tmp_path / "access.log"
    lost = record(status=0, outcome=Outcome.PEER_LOST)
    log.write_text("".join([line(lost), line(record())]))
    general = report(log, name.upper(), "--no-strict-status")
    assert (general["total_requests"], general["failed_requests"]) == (2, 0)
