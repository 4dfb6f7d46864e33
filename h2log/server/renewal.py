"""A certificate that changes while it is served: noticed, checked, and used from then on."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from h2log.config import TlsSettings
from h2log.errors import UsageError
from h2log.server.tls import tls_context

__all__ = ["LOOK_EVERY", "PairWatch", "hung_up", "renewed"]

_logger = logging.getLogger("h2log.server")

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at the files."""

_Signature = tuple[tuple[int, int, int] | None, ...]


class PairWatch:
    """Says when the files of a certificate and its key, and of clients' authorities, are others
    than they were: those of `TlsSettings.files`.

    They are written one after the other: a change counts once it has stood still between two
    looks, so that half of it is not taken for a mistake.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._known = self._seen = self._signature()

    def _signature(self) -> _Signature:
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            try:
                status = os.stat(path)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def changed(self) -> bool:
        """Look; return whether there is another pair to be tried."""
        signature = self._signature()
        if signature == self._known:
            self._seen = signature
            return False
        if signature != self._seen:
            self._seen = signature
            return False
        self._known = signature
        return True

    def noted(self) -> None:
        """Take the files as they are for the known ones: they were just tried."""
        self._known = self._seen = self._signature()


def renewed(tls: TlsSettings) -> ssl.SSLContext | None:
    """Return a context with the pair as it is now; None, and a line that says why, if it is bad."""
    try:
        context = tls_context(tls)
    except UsageError as error:
        _logger.error("the certificate is not renewed, the old one stays: %s", error)
        return None
    _logger.info("the certificate %s is renewed", tls.cert)
    return context


def hung_up() -> Callable[[], bool]:
    """Return what says, at a SIGHUP, whether our terminal was closed.

    Then the signal means the end, as for any program of a terminal; without one it was sent by
    somebody who wants something to be read anew. To be called before.
    """
    had = _terminal()
    return lambda: had and not _terminal()


def _terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
