"""h2load against a server whose logs a settings file sets up, and what those logs say then."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from h2log.access import Line, is_note, parse_line, read_note
from h2log.access.full import HEADER
from h2log.access.record import Outcome
from h2log.server.certificates import Certificates
from tests.support import Process, run

__all__ = [
    "ARTICLE",
    "FULL",
    "Gap",
    "Load",
    "Told",
    "answered",
    "load",
    "opened",
    "serving",
    "told",
]

ARTICLE = "/article/a2e12610c3f94d0b8e7f5a4b3c2d1e0f/06-request.html"
FULL = "h2log-full"
_REQUESTS = re.compile(
    r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, "
    r"(\d+) errored, (\d+) timeout\n"
    r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx\n"
)


@contextmanager
def serving(
    folder: Path, certs: Certificates, log: Path, output: str, rest: str = ""
) -> Iterator[Process]:
    """Serve the articles with one access log, whose settings are `output`, and a session log.

    The settings, and the session log, are in `folder`.
    """
    settings = folder / "h2log.toml"
    settings.write_text(
        f'[[log.access]]\npath = "{log}"\n{output}\n'
        f'[log.session]\npath = "{folder / "session.log"}"\n{rest}\n'
    )
    with Process("serve", "--config", str(settings), certs=certs, log=log) as server:
        yield server


# The load


@dataclass(frozen=True)
class Load:
    """What h2load tells of its requests."""

    started: int
    done: int
    succeeded: int
    failed: int
    """Without those that it gave up itself, when its time was over."""
    statuses: tuple[int, int, int, int]
    """How many were 2xx, 3xx, 4xx, 5xx."""

    @property
    def good(self) -> bool:
        """Every request that came to its end was answered with success."""
        only = (self.done, 0, 0, 0)
        return self.done > 0 and self.succeeded == self.done and self.statuses == only


async def load(server: Process, *arguments: str, path: str = ARTICLE) -> Load:
    """Run h2load with `arguments`; it must come to its end."""
    done = await run("h2load", *arguments, f"{server.url}{path}", timeout=150)
    found = _REQUESTS.search(done.text)
    assert found is not None, (done.text, done.stderr)
    _, started, finished, succeeded, failed, errored, timed_out, *statuses = map(
        int, found.groups()
    )
    two, three, four, five = statuses
    lost = failed + errored + timed_out
    return Load(started, finished, succeeded, lost, (two, three, four, five))


# The logs


class Gap(NamedTuple):
    """A note of the log: the numbers of lines that it lacks."""

    first: int
    last: int
    reason: str


@dataclass
class Told:
    """What a log says, in the order of its files."""

    lines: list[Line]
    gaps: list[Gap]

    @property
    def written(self) -> list[int]:
        """The numbers of the lines."""
        return [line.sequence or 0 for line in self.lines]

    @property
    def dropped(self) -> list[int]:
        """The numbers that notes name."""
        return [n for gap in self.gaps for n in range(gap.first, gap.last + 1)]


def told(text: str, name: str = FULL) -> Told:
    """Return what a log of the format `name` says; every line of it parses, or is a note."""
    assert text[-1:] in ("", "\n")
    lines = text.split("\n")[:-1]
    found = Told([], [])
    if name == FULL and lines:
        assert f"{lines[0]}\n" == HEADER
        del lines[0]
    for line in lines:
        if is_note(line):
            note = read_note(line)
            assert note.kind == "dropped", line
            assert note.last - note.first + 1 == note.lines, line
            found.gaps.append(Gap(note.first, note.last, note.reason))
        else:
            found.lines.append(parse_line(name, line))
    return found


def opened(folder: Path) -> int:
    """Return how many requests were opened, by the session log of a server that has stopped."""
    header, *lines = (folder / "session.log").read_text("ascii").splitlines()
    columns = header.removeprefix("#Fields: ").split()
    events = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines]
    closed = {event["session"]: event for event in events if event["event"] == "closed"}
    assert closed.keys() == {event["session"] for event in events}
    return sum(int(event["requests"]) for event in closed.values())


def answered(lines: list[Line]) -> int:
    """Return how many of the requests were answered; the others' clients were gone before."""
    statuses = Counter((line.status, line.outcome) for line in lines)
    gone = statuses[None, Outcome.PEER_LOST]
    assert {status for status, _ in statuses} <= ({200, None} if gone else {200})
    assert sum(count for (status, _), count in statuses.items() if status is None) == gone
    return len(lines) - gone
