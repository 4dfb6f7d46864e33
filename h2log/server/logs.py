"""Every log of a server process, opened and closed together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from h2log.access.formats import Format
from h2log.access.formats import compile as compile_format
from h2log.access.notes import NoteFunction
from h2log.access.record import AccessRecord, Session
from h2log.access.redaction import DEFAULT, Redaction
from h2log.access.session_formats import SESSION_FORMATS
from h2log.access.skip import Skip, compile_skip
from h2log.clock import LocalZone
from h2log.config import LogSettings
from h2log.config.imports import named_function
from h2log.config.settings import AccessOutput, AppOutput, Output, SessionOutput
from h2log.config.settings import Rotation as RotationSettings
from h2log.logfile.applog import AppLog, configure
from h2log.logfile.fan import LogFan
from h2log.logfile.health import Health
from h2log.logfile.rotation import Rotation
from h2log.logfile.schedule import time_zone
from h2log.logfile.writer import STDERR, STDOUT, LogWriter

__all__ = [
    "Logs",
    "access_line",
    "access_writer",
    "app_log",
    "format_of",
    "redaction_of",
    "session_writer",
    "skip_of",
]

_Writer = TypeVar("_Writer", bound=LogWriter)


class _Text:
    """A format for what is text already: an event is put down as it is when it happens."""

    def __init__(self, header: str, note: NoteFunction | None) -> None:
        self.header = header
        self.note = note

    def __call__(self, text: str) -> str:
        return text


def _rotation(settings: RotationSettings) -> Rotation | None:
    rules = settings.rules()
    return None if rules is None else Rotation.of(**rules)


def _writer(
    make: type[_Writer], output: Output, line: Callable[[Any], str | None], **options: Any
) -> _Writer:
    return make(
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


def access_line(output: AccessOutput, redact: Redaction) -> Format:
    """Return the format of an output of the access log, as its terminal takes it."""
    line = format_of(output.format, output.timezone, redact)
    return line.colored if _wants_color(output.path) else line


def access_writer(make: type[_Writer], output: AccessOutput, redact: Redaction) -> _Writer:
    """Return the writer of an output of the access log. Raises UsageError."""
    skip = skip_of(output.skip) if output.skip else None
    return _writer(make, output, access_line(output, redact), skip=skip)


def session_writer(make: type[_Writer], session: SessionOutput) -> _Writer:
    """Return the writer of the session log: it takes the lines of its format."""
    known = SESSION_FORMATS[session.format]
    return _writer(
        make,
        session,
        _Text(known.header, known.note),
        what="session log",
        remedy="choose another with log.session.path",
    )


def app_log(app: AppOutput, make: type[LogWriter] = LogWriter) -> AppLog:
    """Return the application's log.

    Through a writer of its own, also to standard error: a terminal or a pipe that takes nothing
    must not hold up the loop.
    """
    console = app.path == STDOUT
    path = STDERR if console else app.path
    rotation = None if console else _rotation(app.rotate)
    return AppLog(path, app.level, rotation, make=make, console=app.console)


def _wants_color(path: str) -> bool:
    """Say whether an output is a terminal whose owner takes colours (no-color.org)."""
    streams = {STDOUT: sys.stdout, STDERR: sys.stderr}
    return path in streams and streams[path].isatty() and not os.environ.get("NO_COLOR")


class Logs:
    """The access log's outputs, the session log, and the application's log.

    Use: `await open()`, `access.put` and `tell` while serving, `await close()` at the end. `block`
    says whether an output wants requests to wait while it is full (`overloaded`).
    """

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        redact = redaction_of(settings)
        outputs = [
            (access_writer(LogWriter, output, redact), output) for output in settings.outputs
        ]
        self.access = LogFan(
            [writer for writer, output in outputs if not output.immediate],
            [writer for writer, output in outputs if output.immediate],
        )
        every: list[Output] = [*settings.outputs, settings.session]
        self.block = any(output.path and output.overload == "block" for output in every)
        self._session: LogWriter | None = None
        session = settings.session
        if session.path:
            self._session_line = SESSION_FORMATS[session.format]
            self._session = session_writer(LogWriter, session)
        self._app = app_log(settings.app)

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
        self._app.reopen()

    async def close(self) -> None:
        """Write what is left and close all; the application's log is the last."""
        await self.access.close()
        if self._session is not None:
            await self._session.close()
        await self._app.close()
        configure(self._settings.level)

    def health(self) -> tuple[Health, ...]:
        """Return how each log does: the access log's outputs, the session log, our own."""
        session = () if self._session is None else (self._session.health(),)
        return (*self.access.health(), *session, self._app.writer.health())

    @property
    def overloaded(self) -> bool:
        """Whether requests are to wait: a log that holds them up has no room."""
        return self.access.overloaded or (self._session is not None and self._session.overloaded)

    async def ready(self) -> None:
        """Return when all have room again."""
        await self.access.ready()
        if self._session is not None:
            await self._session.ready()

    @property
    def stuck(self) -> bool:
        """Whether a thread of any could not be ended."""
        stuck = self.access.stuck or self._app.stuck
        return stuck or (self._session is not None and self._session.stuck)
