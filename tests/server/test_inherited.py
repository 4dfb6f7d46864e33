"""Listening sockets that somebody else has opened: `--fd`, and systemd's socket activation."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from h2log.config import ServerSettings
from h2log.errors import UsageError
from h2log.server.certificates import Certificates
from h2log.server.sockets import given_sockets, listening, place_of
from tests.support import PATIENCE, ROOT, Process, client_context, poll, tool

APP = "tests.server.telling_app:app"
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.mark.parametrize("count", [1, 2])
def test_a_descriptor_is_served(
    certs: Certificates, tmp_path: Path, listener: socket.socket, count: int
) -> None:
    """`--fd N`, by one process and by several; what waits in it is answered."""
    port = listener.getsockname()[1]
    number = listener.fileno()
    with Process(
        "run", APP, "--fd", str(number), "--workers", str(count), certs=certs,
        log=tmp_path / "access.log", pass_fds=[number],
    ) as server:  # fmt: skip
        assert server.url == f"https://127.0.0.1:{port}"
        with httpx.Client(verify=client_context(certs), http2=True) as client:
            assert client.get(f"{server.url}/").json()["client"] == "127.0.0.1"
        assert server.stop() == 0


def test_a_unix_socket_s_file_is_its_owner_s(tmp_path: Path) -> None:
    """Whoever made it removes it: the next process that is given it serves on."""
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        with Process(
            "run", APP, "--fd", str(given.fileno()), certs=None, log=tmp_path / "access.log",
            pass_fds=[given.fileno()],
        ) as server:  # fmt: skip
            assert server.url == f"http://unix:{path}"
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport) as client:
                assert client.get("http://localhost/").json()["client"] == "unix:"
            assert server.stop() == 0
        assert path.exists()


def wrong_sockets() -> Iterator[tuple[socket.socket, str]]:
    """Yield sockets that cannot be accepted from, and what is said of each."""
    plain = socket.socket()
    yield plain, "is a socket that does not listen"
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    yield datagrams, "is no stream socket"
    one, other = socket.socketpair()
    other.close()
    yield one, "is a socket that does not listen (with systemd, Accept=no is needed)"


def test_what_is_no_listening_socket() -> None:
    """It is told what the descriptor is, and it stays open: it may be somebody's."""
    for sock, complaint in wrong_sockets():
        with sock:
            with pytest.raises(UsageError) as caught:
                listening(ServerSettings(fd=sock.fileno()), [])
            assert f"server.fd = {sock.fileno()} {complaint}" in str(caught.value)
            assert os.fstat(sock.fileno())
    reading, writing = os.pipe()
    try:
        with pytest.raises(UsageError, match="is no socket; hand over a listening socket"):
            listening(ServerSettings(fd=reading), [])
        assert os.fstat(reading)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(UsageError, match="is not open; hand over a listening socket"):
        listening(ServerSettings(fd=reading), [])


def test_a_mistake_is_told_by_the_command(tmp_path: Path) -> None:
    """Exit code 2 and one line."""
    for arguments, complaint in (
        (["--fd", "0"], "server.fd = 0 is no socket"),
        (["--fd", "1000000"], "server.fd = 1000000 is not open"),
        (["--fd", "3", "--unix", "a.sock"], "server.unix is set, too; leave one out"),
        (["--proxy-protocol", "10.0.0.1/8"], 'did you mean "10.0.0.0/8"?'),
        (["--proxy-headers", "unix,nobody"], "server.proxy_headers[1]: 'nobody' is no network"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "h2log", "run", APP, "--insecure", *arguments,
             "--access-log", str(tmp_path / "log")],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 2
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


# Socket activation


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have none of systemd's variables at the end, whatever a test does with them."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(
    ("pid", "count"),
    [("1", "1"), ("", "1"), ("own", ""), ("own", "-1"), ("own", "²"), ("own", "0")],
)
def test_what_is_for_another_process(monkeypatch: pytest.MonkeyPatch, pid: str, count: str) -> None:
    """Nothing is taken; the variables are gone all the same."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid == "own" else pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_FDNAMES", "a:b")
    assert given_sockets() == []
    assert not any(name in os.environ for name in VARIABLES)


ACTIVATED = """
import fcntl, os, sys
numbers = [int(number) for number in sys.argv[1].split(",")]
moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 64) for number in numbers]
for place, number in enumerate(moved):
    os.dup2(number, 3 + place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(moved)), LISTEN_FDNAMES="web:log")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def activated(descriptors: list[int], *arguments: str) -> subprocess.Popen[str]:
    """Begin a Python program with descriptors from 3 on, as systemd does."""
    numbers = ",".join(map(str, descriptors))
    return subprocess.Popen(
        [sys.executable, "-c", ACTIVATED, numbers, *arguments],
        cwd=ROOT, pass_fds=descriptors, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_sockets_of_socket_activation(listener: socket.socket, tmp_path: Path) -> None:
    """Every one of them, TCP or Unix; children inherit neither them nor the variables."""
    path = tmp_path / "given.sock"
    program = (
        "import os, json\n"
        "from h2log.server.sockets import given_sockets, place_of\n"
        "found = given_sockets()\n"
        "print(json.dumps([[place_of(sock), sock.get_inheritable(), sock.getblocking()]"
        " for sock in found]))\n"
        f"print([name for name in {VARIABLES!r} if name in os.environ])\n"
    )
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        with activated([listener.fileno(), unix.fileno()], "-c", program) as process:
            out, errors = process.communicate(timeout=PATIENCE)
    assert errors == ""
    found, variables = out.splitlines()
    assert json.loads(found) == [
        [[*listener.getsockname()], False, False],
        [[f"unix:{path}", 0], False, False],
    ]
    assert variables == "[]"


def test_what_systemd_calls_it_is_in_the_message() -> None:
    """A datagram socket of a unit file is named as the unit names it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        command = ["-m", "h2log", "run", APP, "--insecure"]
        with activated([wrong.fileno()], *command) as process:
            _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "socket activation: descriptor 3 (web) is no stream socket" in errors


def test_a_descriptor_among_the_given_is_the_one(listener: socket.socket) -> None:
    """`--fd 3` under socket activation serves that one, and closes the others."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        given = [socket.socket(fileno=os.dup(sock.fileno())) for sock in (listener, other)]
        [found] = listening(ServerSettings(fd=given[1].fileno()), given)
        assert place_of(found) == other.getsockname()
        assert given[0].fileno() == -1
        found.close()


@pytest.mark.parametrize("count", [1, 2])
def test_systemd_socket_activate(tmp_path: Path, count: int) -> None:
    """The real one: the first connection starts the server, and is answered."""
    path = tmp_path / "activated.sock"
    log = tmp_path / "access.log"
    command = [
        tool("systemd-socket-activate"), "-l", str(path), "-E", "PATH", sys.executable, "-m",
        "h2log", "run", APP, "--insecure", "--workers", str(count), "--access-log", str(log),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            poll(path.exists)
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=str(path), retries=3), timeout=30
            ) as client:
                assert client.get("http://localhost/").json()["client"] == "unix:"
            assert process.stdout is not None
            assert process.stdout.readline() == f"http://unix:{path}\n"
        finally:
            process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert log.read_text("ascii").count("\n") == 1
