"""Other ASGI servers, in processes of their own, with `tests.integrations.asgi_app`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.integrations.lines import Lines
from tests.support import PATIENCE, ROOT, free_port, poll, tool

__all__ = ["OtherServer"]


class OtherServer:
    """`command` with `{port}` in it, `PYTHON` for the interpreter, in cleartext.

    Use: `with OtherServer(command, log) as server`: it accepts when the block begins, and is sent
    SIGTERM at its end.
    """

    def __init__(
        self, command: list[str], log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        program = {"PYTHON": sys.executable}.get(command[0])
        if program is None:
            # Beside the interpreter that runs the tests, or wherever it is.
            beside = Path(sys.executable).parent / command[0]
            program = str(beside) if beside.exists() else tool(command[0])
        self._command = [program, *(part.format(port=self.port) for part in command[1:])]
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
        self._folder = log.parent
        self.full = Lines(log)
        self.certs = None
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._output = (self._folder / "output").open("w+b")
        self.popen = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def accepts() -> bool:
            if self.popen.poll() is not None:
                self._output.close()
                pytest.fail(f"it did not start: {self.output}")
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.port)) == 0

        poll(accepts, PATIENCE * 2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            if self.popen.poll() is None:
                self.popen.kill()
                self.popen.wait(PATIENCE)
            self._output.close()

    @property
    def output(self) -> str:
        """What it printed so far."""
        return (self._folder / "output").read_text("utf-8", "replace")

    def stop(self) -> int:
        """Send SIGTERM, and wait for the end."""
        if self.popen.poll() is None:
            self.popen.terminate()
        return self.popen.wait(PATIENCE * 2)
