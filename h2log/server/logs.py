"""Every log of a server process, opened and closed together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from h2log.access.formats import Format
from h2log.access.formats import compile as compile_format
from h2log.access.record import AccessRecord, Session
from h2log.access.redaction import DEFAULT, Redaction
from h2log.access.session_formats import SESSION_FORMATS
from h2log.access.skip import Skip, compile_skip
from h2log.clock import LocalZone
from h2log.config import LogSettings
from h2log.config.imports import named_function
from h2log.config.settings import AccessOutput, Output
from h2log.config.settings import Rotation as RotationSettings
from h2log.logfile.applog import AppLog, configure
from h2log.logfile.fan import LogFan
from h2log.logfile.rotation import Rotation
from h2log.logfile.schedule import time_zone
from h2log.logfile.writer import STDERR, STDOUT, LogWriter

__all__ = ["Logs", "format_of", "redaction_of", "skip_of"]


class _Text:
    """A format for what is text already: an event is put down as it is when it happens."""

    def __init__(self, header: str) -> None:
        self.header = header

    def __call__(self, text: str) -> str:
        return text


def _rotation(settings: RotationSettings) -> Rotation | None:
    rules = settings.rules()
    return None if rules is None else Rotation.of(**rules)


def _writer(output: Output, line: Callable[[Any], str | None], **options: Any) -> LogWriter:
    return LogWriter(
        output.path,
        line,
        output.flush_interval,
        output.max_buffer,
        rotation=_rotation(output.rotate),
        overload=output.overload,
        fsync=output.fsync,
        file_mode=output.file_mode,
        **options,
    )


def format_of(text: str, timezone: str = "utc", redact: Redaction = DEFAULT) -> Format:
    """Return the format that a setting means: a name, a format string or `python:module:function`.

    Raises UsageError.
    """
    return compile_format(
        named_function(text) or text, zone=time_zone(timezone) or LocalZone(), redact=redact
    )


def redaction_of(settings: LogSettings) -> Redaction:
    """Return what masks the secrets in every line."""
    return Redaction(query=settings.redact.query, headers=settings.redact.headers)


def skip_of(text: str) -> Skip:
    """Return the predicate that a setting means: an expression or `python:module:function`.

    Raises SkipError, and UsageError for the function.
    """
    return named_function(text) or compile_skip(text)


def _access_writer(output: AccessOutput, redact: Redaction) -> LogWriter:
    line = format_of(output.format, output.timezone, redact)
    if _wants_color(output.path):
        line = line.colored
    return _writer(output, line, skip=skip_of(output.skip) if output.skip else None)


def _wants_color(path: str) -> bool:
    """Say whether an output is a terminal whose owner takes colours (no-color.org)."""
    streams = {STDOUT: sys.stdout, STDERR: sys.stderr}
    return path in streams and streams[path].isatty() and not os.environ.get("NO_COLOR")


class Logs:
    """The access log's outputs, the session log, and the application's log.

    Use: `await open()`, `access.put` and `tell` while serving, `await close()` at the end. `block`
    says whether an output wants requests to wait while it is full (`access.overloaded`).
    """

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        redact = redaction_of(settings)
        outputs = [(_access_writer(output, redact), output) for output in settings.outputs]
        self.access = LogFan(
            [writer for writer, output in outputs if not output.immediate],
            [writer for writer, output in outputs if output.immediate],
        )
        self.block = any(output.overload == "block" for output in settings.outputs)
        self._session: LogWriter | None = None
        session = settings.session
        if session.path:
            line = SESSION_FORMATS[session.format]
            self._session_line = line
            self._session = _writer(
                session,
                _Text(line.header),
                what="session log",
                remedy="choose another with log.session.path",
            )
        app = settings.app
        # Through a writer of its own, also to standard error: a terminal or a pipe that takes
        # nothing must not hold up the loop.
        console = app.path == STDOUT
        path = STDERR if console else app.path
        self._app = AppLog(path, app.level, None if console else _rotation(app.rotate))

    @property
    def opening(self) -> Callable[[AccessRecord], None] | None:
        """What takes the record of a request that was opened, or None when nobody wants to know."""
        return self.access.opened if self.access.immediate else None

    @property
    def tell(self) -> Callable[[str, Session], None] | None:
        """What takes a session's event, or None when nobody wants to know."""
        return None if self._session is None else self._tell

    def _tell(self, event: str, session: Session) -> None:
        assert self._session is not None
        self._session.put(self._session_line((event, session)))

    async def open(self) -> None:
        """Open all. Raises UsageError when one cannot be opened."""
        await self.access.open()
        try:
            if self._session is not None:
                await self._session.open()
            await self._app.open()
        except BaseException:
            await self.close()
            raise
        configure(self._settings.level, console=False)

    def reopen(self) -> None:
        """Look at once whether the paths still name the open files (SIGUSR1)."""
        self.access.reopen()
        if self._session is not None:
            self._session.reopen()
        self._app.writer.reopen()

    async def close(self) -> None:
        """Write what is left and close all; the application's log is the last."""
        await self.access.close()
        if self._session is not None:
            await self._session.close()
        await self._app.close()
        configure(self._settings.level)

    @property
    def stuck(self) -> bool:
        """Whether a thread of any could not be ended."""
        stuck = self.access.stuck or self._app.writer.stuck
        return stuck or (self._session is not None and self._session.stuck)
