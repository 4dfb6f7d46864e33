"""A hundred thousand requests that mean harm to the log, told side by side in every format."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from h2log import App, Request, Response
from h2log.access import NAMES, Line, parse_line
from h2log.access.full import HEADER
from h2log.access.lines import unescape
from h2log.access.record import Outcome
from h2log.http2.budget import BUDGETS
from h2log.server.certificates import Certificates
from tests.server.hostile import WHOLE, Sent
from tests.server.hostile_clients import LOST, REFUSED, WAITING, Key, send_all
from tests.support import Process, eventually

REQUESTS = 100_000
Ids = tuple[str | None, str | None]
"""Of the session and of the request."""
SLOW = 100.0

QUOTED = '":method" ":url" ":referrer" ":user-agent" ":remote-user" ":req[x-any]" :id :sequence'
_QUOTED = re.compile(r" ".join(['"([\x20\x21\x23-\x7e]*)"'] * 6) + " ([0-9a-f]{32}) ([0-9]+)")

app = App()


@app.route("/{any}", ("GET", "POST"))
def anything(request: Request) -> Response:
    """Answer whatever is asked."""
    return Response.text("so be it\n")


@app.get("/wait")
async def forever(request: Request) -> Response:
    """Never answer."""
    await asyncio.Event().wait()
    return Response.text("never")


# What a line has to tell


TOLD = {
    "h2log": WHOLE[:1],
    "h2log-full": WHOLE,
    "json": WHOLE,
    "ecs": WHOLE,
    "caddy": tuple(key for key in WHOLE if key not in ("scheme", "request_id", "traceparent")),
    "combined": ("target", "method", "user", "referrer", "user_agent"),
    "common": ("target", "method", "user"),
    "short": ("target", "method", "user"),
    "tiny": ("target", "method"),
    "dev": ("target", "method"),
}
WITH_IDS = ("h2log", "h2log-full", "json", "ecs", "caddy")


def bare(value: str | None) -> str | None:
    """Return what is left of a value where `-` stands for nothing, too."""
    return None if value in ("", "-") else value


def check_told(name: str, line: Line, sent: Sent) -> None:
    """A line has what was sent, byte for byte."""
    refused = not sent.sure and sent.status == 400
    for key in TOLD[name]:
        wanted = sent.told[key]
        if refused and key not in ("target", "method", "scheme"):
            wanted = None
        if name not in WITH_IDS and key != "target":
            wanted = bare(wanted)
        assert getattr(line, key) == wanted, (name, key, line)


# The logs


def lines_of(path: Path, name: str) -> Iterator[str]:
    """Yield the lines of requests; each of all is one, by any reader's rules."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for n, text in enumerate(file):
            assert text[-1] == "\n"
            line = text[:-1]
            if name == "h2log-full" and n == 0:
                assert text == HEADER
                continue
            assert line[0] != "#", line
            seen = line.replace("\t", "") if name in ("h2log", "h2log-full") else line
            assert seen.isprintable(), line
            assert name in ("json", "ecs", "caddy") or line.isascii(), line
            yield line


def settings(paths: dict[str, Path]) -> str:
    """Return the settings of a server with all those logs, whose abuse costs nothing."""
    parts = []
    for name, path in paths.items():
        text = QUOTED if name == "quoted" else name
        # The bound is out of reach: here no line is dropped, however slow the disk is.
        parts.append(f"[[log.access]]\npath = '{path}'\nformat = '{text}'\nmax_buffer = '1GB'\n")
    parts += [f"[limits.budgets.{name}]\nburst = {10**9}\nrate = 1e9\n" for name in BUDGETS]
    return "".join(parts)


def complete(path: Path) -> bool:
    """Return whether a log has all of its lines."""
    return path.read_bytes().count(b"\n") >= REQUESTS


@pytest.mark.timeout(600)
async def test_every_format_tells_of_every_request_once(
    certs: Certificates, tmp_path: Path
) -> None:
    """One line each, everywhere in the same order; what it tells is what was sent."""
    logs = tmp_path / "logs"
    paths = {name: logs / f"{name}.log" for name in (*NAMES, "quoted")}
    config = tmp_path / "h2log.toml"
    config.write_text(settings(paths))
    # Each path is given as an option too: those say how many logs there are.
    *others, last = [str(path) for path in paths.values()]
    arguments = ["--config", str(config), *(f"--access-log={path}" for path in others)]
    target = "tests.server.test_log_hostile:app"
    with Process("run", target, *arguments, certs=certs, log=last) as server:
        sent = await send_all(server, REQUESTS)
        for path in paths.values():
            await eventually(partial(complete, path), SLOW)
        assert server.stop() == 0
        assert not server.stderr.end()
    order, ids = check_full(paths["h2log-full"], sent)
    for name in NAMES:
        if name != "h2log-full":
            check_format(name, paths[name], order, ids)
    check_quoted(paths["quoted"], order, ids)
    shutil.rmtree(logs)  # some hundred MiB


def check_full(path: Path, sent: dict[Key, Sent]) -> tuple[list[Sent], list[Ids]]:
    """Find each request's line; return the requests in the order of their lines, and the ids."""
    order: list[Sent] = []
    ids: list[Ids] = []
    uses: dict[int, dict[str, int]] = {}
    outcomes: Counter[Outcome | None] = Counter()
    for number, text in enumerate(lines_of(path, "h2log-full"), 1):
        line = parse_line("h2log-full", text)
        assert line.port is not None and line.stream is not None and line.session is not None
        # A port may come again, once its connection is over and all of its lines are written.
        sessions = uses.setdefault(line.port, {})
        use = sessions.setdefault(line.session, len(sessions))
        made = sent.pop((line.port, use, line.stream))  # it must be there, and is there once
        check_told("h2log-full", line, made)
        assert (line.sequence, line.version) == (number, made.version)
        if made.status is None:  # the client saw no response, or left before
            assert line.outcome is not Outcome.COMPLETE
        assert line.status == made.status, text
        assert made.id in (None, line.request)
        outcomes[line.outcome] += 1
        order.append(made)
        ids.append((line.session, line.request))
    assert not sent
    assert len({request for _, request in ids}) == REQUESTS
    assert outcomes[Outcome.REFUSED] == REFUSED
    assert outcomes[Outcome.CLIENT_RESET] == WAITING
    assert outcomes[Outcome.PEER_LOST] == LOST
    assert outcomes[Outcome.MALFORMED] > REQUESTS // 10
    assert outcomes[Outcome.COMPLETE] > REQUESTS // 2
    return order, ids


def check_format(name: str, path: Path, order: list[Sent], ids: list[Ids]) -> None:
    """The same requests in the same order."""
    lines = lines_of(path, name)
    for number, (text, made, pair) in enumerate(zip(lines, order, ids, strict=True), 1):
        line = parse_line(name, text)
        check_told(name, line, made)
        if name in WITH_IDS:
            assert (line.session, line.request) == pair
        if name in ("json", "ecs"):
            assert line.sequence == number
        if name in ("json", "ecs", "caddy") and number % 10 == 0:
            assert isinstance(json.loads(text), dict)  # by a reader that is no relative


def check_quoted(path: Path, order: list[Sent], ids: list[Ids]) -> None:
    """Between quotes stands nothing that ends them."""
    keys = ("method", "target", "referrer", "user_agent", "user")
    for number, (text, made, pair) in enumerate(
        zip(lines_of(path, "quoted"), order, ids, strict=True), 1
    ):
        found = _QUOTED.fullmatch(text)
        assert found is not None, text
        *values, other, request, sequence = found.groups()
        assert (request, int(sequence)) == (pair[1], number)
        read = Line()
        for key, value in zip(keys, values, strict=True):
            setattr(read, key, unescape(value) if key == "target" else bare(unescape(value)))
        check_told("combined", read, made)
        if made.sure:
            assert bare(unescape(other)) == bare(made.other)
