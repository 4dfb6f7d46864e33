"""What systemd wants to know: readiness, the watchdog (sd_notify(3)).

Its variables are taken out of the environment: they are for this process, not for its children.
"""

from __future__ import annotations

import os
import socket

from h2log.clock import monotonic

__all__ = ["Notifier", "is_asked"]


def is_asked() -> bool:
    """Say whether somebody waits for notifications."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


class Notifier:
    """Tells the service manager what we are at; nothing without one."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        own = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = os.environ.pop("WATCHDOG_USEC", "")
        self._watched = own and limit.isascii() and limit.isdigit()
        # An abstract address begins with a zero byte, which a variable cannot have.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # nobody is there, or it does not read: it is theirs to know
            pass

    def ready(self, status: str) -> None:
        """We serve."""
        self._tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """We have begun to reload; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(monotonic() * 1e6)}")

    def stopping(self) -> None:
        """We have begun to stop."""
        self._tell("STOPPING=1", "STATUS=draining")

    def alive(self) -> None:
        """We are alive: to be called every second."""
        if self._watched:
            self._tell("WATCHDOG=1")
