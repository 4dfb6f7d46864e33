"""What is wrong with values that are right one by one: rules in vain, files of two logs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from h2log.config.check import Check, Problem, fields_of
from h2log.config.settings import AppRotation, Output, Rotation, Settings, is_file_path
from h2log.errors import UsageError

__all__ = ["conflicts", "is_given"]

_STREAMS: Final = {
    **dict.fromkeys(("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"), "-"),
    **dict.fromkeys(("&2", "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"), "&2"),
}
_SOME_DAY: Final = datetime(2001, 2, 3, 14, 5, 6)
"""A time with which two patterns of the same names give the same one."""


class _Log(NamedTuple):
    key: str
    path: str
    rotate: Rotation
    mode: int | None
    own: bool
    """Whether it is h2log's own, of which `-` is standard error, next to anything."""


def conflicts(
    settings: Settings, given: Callable[[str], bool], checks: Mapping[str, Check] | None = None
) -> Iterator[Problem]:
    """Yield what is wrong with the tree as a whole.

    `given` says whether a key was set at all; of `checks`, `output` makes what a log is written to
    of its path, its rotation's rules and its mode, and raises UsageError.
    """
    yield from _connections(settings)
    log = settings.log
    outputs: list[tuple[str, Output]] = [
        (f"log.access[{n}]", output) for n, output in enumerate(log.outputs)
    ]
    outputs.append(("log.session", log.session))
    logs = [_Log(key, one.path, one.rotate, one.file_mode, False) for key, one in outputs]
    logs.append(_Log("log.app", log.app.path, log.app.rotate, None, True))
    compiles = (checks or {}).get("output")
    for one in logs:
        if not one.path:
            continue
        problems = list(_rules(one, given))
        if not problems and compiles is not None and is_file_path(one.path):
            problems = list(_compiled(one, compiles))
        yield from problems
    yield from _shared(logs)


def _connections(settings: Settings) -> Iterator[Problem]:
    """Yield what contradicts itself in where to listen, and whom to let in."""
    server, tls = settings.server, settings.tls
    if server.unix and server.fd >= 0:
        yield Problem("server.fd", "server.unix is set, too; leave one out")
    if tls.client_cert == "none":
        if tls.client_ca:
            yield Problem(
                "tls.client_ca",
                'clients are not asked for a certificate; set tls.client_cert to "optional" or '
                '"required"',
            )
    elif not tls.client_ca:
        yield Problem("tls.client_ca", f'is missing, as tls.client_cert is "{tls.client_cert}"')
    elif server.insecure:
        yield Problem(
            "tls.client_cert", "there are no certificates in cleartext (server.insecure); unset one"
        )


def _rules(log: _Log, given: Callable[[str], bool]) -> Iterator[Problem]:
    """Yield what one log's rules lack, or cannot be followed."""
    rotate = f"{log.key}.rotate"
    default = type(log.rotate)()
    changed = [
        field.encode_name
        for field in fields_of(type(default))
        if getattr(log.rotate, field.name) != getattr(default, field.name)
    ]
    if not is_file_path(log.path):
        if log.own and log.path.startswith("logger:"):
            yield Problem(
                f"{log.key}.path",
                "the application's log has the records of all loggers, its own would come back to "
                f'it; expected a file, "-" or "syslog:", got "{log.path}"',
            )
        elif log.path not in _STREAMS:
            off = isinstance(log.rotate, AppRotation) and not changed
            if log.rotate.rules() is not None and not off:
                yield Problem(rotate, f"only files rotate, {log.path} does not; leave it out")
            if log.mode is not None:
                yield Problem(
                    f"{log.key}.mode", f"only files have a mode, {log.path} has none; leave it out"
                )
        return
    if log.rotate.rules() is None and changed and not given(f"{rotate}.every"):
        names = " and ".join(name for name in changed if name != "every")
        if names:
            yield Problem(
                rotate,
                f"has {names}, but nothing says when the file rotates; add every, such as "
                '"daily", or size, such as "100MB"',
            )


def _compiled(log: _Log, compiles: Check) -> Iterator[Problem]:
    try:
        compiles(log.path, log.rotate.rules(), log.mode)
    except UsageError as error:
        head, mark, text = str(error).partition(": ")
        if mark and head.split(".")[0] == "rotate":
            yield Problem(f"{log.key}.{head}", text)
        else:
            yield Problem(log.key, str(error))


def _shared(logs: list[_Log]) -> Iterator[Problem]:
    """Yield a problem for each file that two logs would write, or rotate away from each other."""
    paths: dict[str, str] = {}
    names: dict[tuple[str, str], str] = {}
    for log in logs:
        stream = _STREAMS.get(log.path)
        if stream is not None:
            # h2log's own lines may stand between others' on standard error; they look different.
            if not log.own and paths.setdefault(stream, log.key) != log.key:
                yield Problem(
                    f"{log.key}.path",
                    f"is where {paths[stream]} writes, too; each log needs a place of its own",
                )
            continue
        if not is_file_path(log.path) or _is_device(log.path):
            continue
        first = paths.setdefault(_place(log), log.key)
        if first != log.key:
            yield Problem(
                f"{log.key}.path", f"is the file of {first}.path, too; each log needs its own"
            )
        elif log.rotate.rules() is not None and log.rotate.name:
            name = _SOME_DAY.strftime(log.rotate.name)
            first = names.setdefault((os.path.dirname(_place(log)), name), log.key)
            if first != log.key:
                yield Problem(
                    f"{log.key}.rotate.name",
                    f"names the closed files of {first}, too; each log needs names of its own",
                )
    for (folder, name), key in names.items():
        other = paths.get(os.path.join(folder, name))
        if other is not None and other != key:
            yield Problem(
                f"{key}.rotate.name", f"can be the file of {other}; choose names of its own"
            )


def _is_device(path: str) -> bool:
    """Return whether a path is such as /dev/null: any number of logs may be written there."""
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


def _place(log: _Log) -> str:
    """Return the file that a log's path means, through links, but for one that is its own."""
    if log.rotate.rules() is not None and log.rotate.current == "symlink":
        folder, name = os.path.split(os.path.abspath(log.path))
        return os.path.join(os.path.realpath(folder), name)
    return os.path.realpath(log.path)


def is_given(values: Mapping[str, Any], key: str) -> bool:
    """Return whether nested `values` have `key`, such as `log.access[0].rotate.every`."""
    found: Any = values
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(found, list | tuple) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, Mapping) and part in found:
            found = found[part]
        else:
            return False
    return True
