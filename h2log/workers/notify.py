"""What systemd wants to know and has to give: readiness, the watchdog, sockets (sd_notify(3),
sd_listen_fds(3)).

Its variables are taken out of the environment: they are for this process, not for its children.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from h2log.clock import monotonic

__all__ = ["Notifier", "given_sockets", "is_asked"]

_FIRST_DESCRIPTOR: Final = 3


def is_asked() -> bool:
    """Say whether somebody waits for notifications, or gives us sockets."""
    return bool(os.environ.get("NOTIFY_SOCKET")) or _given() > 0


def _given() -> int:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    count = os.environ.get("LISTEN_FDS", "")
    return int(count) if count.isascii() and count.isdigit() else 0


def given_sockets() -> list[socket.socket]:
    """Return the listening sockets that were opened for us; none without socket activation."""
    count = _given()
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    found = []
    for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count):
        os.set_inheritable(number, False)
        sock = socket.socket(fileno=number)
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # As `bind` of `server.listener` has them.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        found.append(sock)
    return found


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
