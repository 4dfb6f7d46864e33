"""The control socket: whoever may write to it asks how the server does, and tells it what to do.

A Unix socket, for its owner alone (0600). A question is one line of JSON, `{"do": "status"}`, and
so is the answer; `reload` answers when it is done, `stop` when it has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from h2log.config import Settings
from h2log.config.settings import is_file_path
from h2log.errors import UsageError

__all__ = ["Control", "ask", "control_path"]

_logger = logging.getLogger("h2log.workers")

_NAME: Final = "h2log.sock"
_QUESTION_LIMIT: Final = 4096
"""Bytes of a question."""
_PATIENCE: Final = 5.0
"""Seconds for a question to come."""
_ADDRESS_LIMIT: Final = 100
"""Bytes of a socket's path: 108 on Linux, 104 on macOS, with a zero."""

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def control_path(settings: Settings) -> str:
    """Return where the control socket is: nothing when there is none.

    `auto` is beside the first access log that is a file, so that servers do not get into each
    other's way.
    """
    path = settings.server.control
    if path != "auto":
        return path
    for output in settings.log.outputs:
        if is_file_path(output.path):
            return str(Path(output.path).parent / _NAME)
    return ""


@contextlib.contextmanager
def _address(path: str) -> Iterator[str]:
    """Yield an address for `path`, also where that is longer than an address may be."""
    folder = os.path.dirname(os.path.abspath(path))
    if len(os.fsencode(path)) <= _ADDRESS_LIMIT or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{number}/{os.path.basename(path)}"
    finally:
        os.close(number)


class Control:
    """Answers questions at `path` with `answer`, while it is open; without a path it never is."""

    def __init__(self, path: str, answer: Answer) -> None:
        self.path = path
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self._talks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Be there for questions. Not to be is no reason not to serve: a line says why."""
        if not self.path:
            return
        try:
            sock = self._bind()
        except OSError as error:
            _logger.warning("no control socket %s: %s", self.path, error.strerror or error)
            return
        status = os.stat(self.path)
        self._identity = (status.st_dev, status.st_ino)
        self._server = await asyncio.start_unix_server(self._talk, sock=sock, limit=_QUESTION_LIMIT)

    @property
    def unreachable(self) -> bool:
        """Its file is gone: somebody has cleaned up, and nobody can ask."""
        return self._server is not None and not os.path.lexists(self.path)

    def _bind(self) -> socket.socket:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        try:
            with _address(self.path) as address:
                with contextlib.suppress(FileNotFoundError):
                    _remove_stale(self.path, address)
                before = os.umask(0o177)
                try:
                    sock.bind(address)
                finally:
                    os.umask(before)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
            question = json.loads(line)
            if not isinstance(question, dict):
                raise ValueError("a question is an object")
            answer = await self._answer(question)
        except RecursionError:
            answer = {"error": "a question is an object with one value"}
        except asyncio.CancelledError:  # by `end`
            answer = {"error": "the server stops"}
        except (ValueError, TimeoutError, ConnectionError) as error:
            answer = {"error": str(error) or "no question came"}
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def end(self) -> None:
        """Be there no more, and tell so to whoever still waits for an answer."""
        await self.close()
        for task in self._talks:
            task.cancel()
        if self._talks:
            await asyncio.wait(self._talks)

    async def close(self) -> None:
        """Be there no more."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with contextlib.suppress(OSError):
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self.path)


def _remove_stale(path: str, address: str) -> None:
    """Remove a socket whose server is gone. Raises OSError when one has it, or it is no socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        raise FileExistsError(17, "another server has it")


def ask(path: str, question: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Ask the server whose control socket is `path`; return its answer.

    Raises UsageError when nobody answers there.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock, _address(path) as address:
            sock.settimeout(timeout)
            sock.connect(address)
            sock.sendall(json.dumps(question).encode() + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
    except (FileNotFoundError, ConnectionRefusedError):
        raise UsageError(
            f"no server answers at {path}: is one running, with several workers? Name its control "
            "socket with --control"
        ) from None
    except TimeoutError:
        raise UsageError(f"the server at {path} does not answer") from None
    except OSError as error:
        raise UsageError(f"cannot ask the server at {path}: {error.strerror}") from None
    if not line:
        raise UsageError(f"the server at {path} has ended before it answered")
    try:
        answer = json.loads(line)
    except ValueError:
        raise UsageError(f"what answers at {path} is no server of h2log") from None
    if not isinstance(answer, dict):
        raise UsageError(f"what answers at {path} is no server of h2log")
    if "error" in answer:
        raise UsageError(str(answer["error"]))
    return answer
