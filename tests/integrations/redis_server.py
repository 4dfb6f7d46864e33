"""A Redis of the test's own: on a free port, its files in the test's folder."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.support import PATIENCE, free_port, tool

__all__ = ["RedisServer"]


class RedisServer:
    """`redis-server` in a process of its own. Use: `with RedisServer(tmp_path) as redis`.

    It listens when the block begins. `kill` ends it at once, `start` starts it again on the same
    port with what it had written: every write is in its file before it is answered.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._program = tool("redis-server")
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.port = free_port()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The address to give to a store."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, again, on its port."""
        assert self._started(), self.output()

    def kill(self) -> None:
        """End it as a loss of power would, for the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def output(self) -> str:
        """Return what it has said."""
        return (self._folder / "redis.log").read_text("utf-8", "replace")

    def _started(self) -> bool:
        """Start it; False when it ended instead of listening."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        options += ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *options, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if self._answers():
                return True
            time.sleep(0.005)
        self.kill()
        return False

    def _answers(self) -> bool:
        """Say whether it answers PING, which it does not while it reads its file."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
