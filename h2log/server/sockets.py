"""Listening sockets: addresses that are bound, Unix sockets, and those that somebody opened for us.

`listening` is the one way to them, for a single process and for the supervisor of several.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from h2log.config import ServerSettings
from h2log.errors import UsageError
from h2log.server.networks import UNIX

__all__ = ["UnixSocket", "bind", "bind_unix", "given_sockets", "listening", "place_of"]

_FIRST_DESCRIPTOR: Final = 3
"""Of those that systemd hands over (sd_listen_fds(3))."""
_LOCK_WAIT: Final = 2.0
"""Seconds for another process to be done with its socket in the same folder."""


def listening(server: ServerSettings, given: list[socket.socket]) -> list[socket.socket]:
    """Return the sockets to accept from, as the settings say.

    `fd` is before `given`, those of `given_sockets`; these are before `unix`, and that is before
    `host` and `port`. Those that are not used are closed. Raises UsageError.
    """
    if server.fd >= 0:
        found = next((sock for sock in given if sock.fileno() == server.fd), None)
        for sock in given:
            if sock is not found:
                sock.close()
        return [found or _inherited(server.fd, f"server.fd = {server.fd}")]
    if given:
        return given
    if server.unix:
        return [bind_unix(server.unix, int(server.unix_mode, 8), server.backlog)]
    return bind(server.host, server.port, server.backlog)


def bind(
    host: str, port: int, backlog: int, options: tuple[str, str] = ("--host", "--port")
) -> list[socket.socket]:
    """Return listening sockets for every address of `host`; port 0 is the same free one for all.

    `options` are what a message calls the two.
    Raises UsageError when the name is unknown, the address is not ours, or the port is in use.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{options[0]} {host}: {reason}; give an address or a known name"
        ) from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _set_up(listener)
            listener.bind((address[0], port, *address[2:]))
            port = listener.getsockname()[1]
            listener.listen(backlog)
    except OSError as error:
        for listener in sockets:
            listener.close()
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            text = (
                f"the port is in use; stop the other program, or choose another with {options[1]}"
            )
        elif error.errno == errno.EACCES:
            text = f"not permitted; ports below 1024 need rights, choose another with {options[1]}"
        elif error.errno == errno.EADDRNOTAVAIL:
            text = f"this machine does not have the address; choose another with {options[0]}"
        else:
            text = error.strerror or str(error)
        raise UsageError(f"cannot listen on {where}: {text}") from None
    return sockets


def _set_up(listener: socket.socket) -> None:
    """Give a socket what those that it accepts are to inherit."""
    listener.setblocking(False)
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        # A response must not wait for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # So that a peer which vanished without a word is noticed some day.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


# Unix sockets


class UnixSocket(socket.socket):
    """A listening Unix socket whose file goes when it is closed, if the file is still its own.

    Another process that has the same socket closes it as any other.
    """

    path = ""
    """Where its file is, absolute."""
    _identity: tuple[int, int] | None = None

    def own(self, path: str) -> None:
        """Take the file at `path` for this socket's."""
        status = os.stat(path)
        self.path = path
        self._identity = (status.st_dev, status.st_ino)

    @property
    def unreachable(self) -> bool:
        """Its file is gone: somebody has cleaned up, and no client finds it."""
        return self._identity is not None and not os.path.lexists(self.path)

    def close(self) -> None:
        """Close it, and remove its file."""
        identity, self._identity = self._identity, None
        if identity is not None:
            try:
                status = os.lstat(self.path)
                if (status.st_dev, status.st_ino) == identity:
                    os.unlink(self.path)
            except OSError:  # gone, or not to be removed: the next start replaces it
                pass
        super().close()


def bind_unix(path: str, mode: int, backlog: int) -> UnixSocket:
    """Return a socket that listens at `path`, whose file has the permissions `mode`.

    A socket's file that nobody listens on any more is replaced. Raises UsageError when somebody
    does, when another kind of file is there, or when it cannot be made.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("server.unix: this system has no Unix sockets; use --host and --port")
    path = os.path.abspath(path)
    listener = UnixSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _set_up(listener)
        with _alone_in(os.path.dirname(path)):
            try:
                listener.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                _remove_stale(path)
                listener.bind(path)
            listener.own(path)
            # Nobody can connect before `listen`: there is no moment with other permissions.
            os.chmod(path, mode)
            listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {path}: {_unix_trouble(path, error)}") from None
    except BaseException:
        listener.close()
        raise
    return listener


def _unix_trouble(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"no folder {os.path.dirname(path)}; make it"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{(error.strerror or '').lower()}; choose a folder that can be written, --unix PATH"
    if error.errno is None:  # Python's own: "AF_UNIX path too long"
        return "the path is too long, some 100 bytes are allowed; choose a shorter one, --unix PATH"
    return error.strerror or str(error)


def _remove_stale(path: str) -> None:
    """Remove a socket's file that nobody listens on. Raises UsageError for anything else."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise UsageError(
            f"cannot listen on {path}: a file that is no socket is there; "
            "remove it, or choose another path with --unix"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:  # its backlog is full
            pass
        except OSError as error:
            raise UsageError(
                f"cannot listen on {path}: a socket is there, and whether somebody uses it cannot "
                f"be found out ({(error.strerror or '').lower()}); choose another with --unix"
            ) from None
    raise UsageError(
        f"cannot listen on {path}: another program does; stop it, or choose another with --unix"
    )


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Let no other server replace a socket in the same folder meanwhile: both would find it stale,
    and one remove what the other has just made."""
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # who may make files there need not be allowed to list them
        yield
        return
    try:
        deadline = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UsageError(
                        f"cannot listen in {folder}: another program keeps the folder locked; "
                        "try again, or choose another with --unix"
                    ) from None
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)


# Sockets that were opened for us


def given_sockets() -> list[socket.socket]:
    """Return the listening sockets of systemd's socket activation (sd_listen_fds(3)); or none.

    Its variables are taken out of the environment: they are for this process, not for its
    children. Raises UsageError for a descriptor that is no listening socket.
    """
    wanted = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if wanted != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    found = []
    for place in range(int(count)):
        number = _FIRST_DESCRIPTOR + place
        name = f" ({names[place]})" if place < len(names) and names[place] else ""
        found.append(_inherited(number, f"socket activation: descriptor {number}{name}"))
    return found


def _inherited(number: int, what: str) -> socket.socket:
    """Return the listening socket that is open as descriptor `number`; `what` a message calls it.

    Raises UsageError when it is none, and leaves it as it is.
    """
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        trouble = "is not open" if error.errno == errno.EBADF else "is no socket"
        raise UsageError(f"{what} {trouble}; hand over a listening socket") from None
    trouble = ""
    if sock.type != socket.SOCK_STREAM:
        trouble = "is no stream socket"
    elif sock.family not in (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", None)):
        trouble = "is neither TCP nor a Unix socket"
    elif not _is_listening(sock):
        trouble = "is a socket that does not listen (with systemd, Accept=no is needed)"
    if trouble:
        sock.detach()
        raise UsageError(f"{what} {trouble}; hand over a listening socket")
    os.set_inheritable(number, False)
    _set_up(sock)
    return sock


def _is_listening(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # macOS does not tell
        return sys.platform == "darwin"


def place_of(sock: socket.socket) -> tuple[str, int]:
    """Return the address and port of a listening socket; `unix:PATH` and 0 of a Unix socket."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    text = os.fsdecode(name)
    # An abstract one has a zero byte in front, which systemd and others show as @.
    return f"{UNIX}{text.replace(chr(0), '@', 1)}", 0
