"""Unix sockets: who connects by one, whose file it is, and when it goes."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from h2log.config import ServerSettings
from h2log.errors import UsageError
from h2log.server.certificates import Certificates
from h2log.server.sockets import bind_unix, listening, place_of
from tests.server.telling_app import telling
from tests.support import Process, Running, accepts, poll, run, tool

APP = "tests.server.telling_app:app"


def owned(path: Path) -> int:
    """Return the permissions of a socket's file."""
    status = path.lstat()
    assert stat.S_ISSOCK(status.st_mode)
    return stat.S_IMODE(status.st_mode)


# Being served


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_curl_is_answered(
    certs: Certificates, tmp_path: Path, secure: bool, version: str
) -> None:
    """Over TLS and in cleartext, by both protocols; the client is `unix:`, port 0, as in nginx."""
    path = tmp_path / "h2log.sock"
    pair = certs if secure else None
    more = ["--cacert", str(certs.ca)] if secure else []
    if not secure and version == "--http2":
        version = "--http2-prior-knowledge"
    async with Running(telling(), pair, server={"unix": str(path)}) as server:
        scheme = "https" if secure else "http"
        assert server.url == f"{scheme}://unix:{path}"
        done = await run(
            "curl", "-sS", version, "--unix-socket", str(path), *more, f"{scheme}://localhost/"
        )
        told = json.loads(done.text)
        [record] = await server.logged(1)
    assert (told["client"], told["port"], told["scheme"]) == ("unix:", 0, scheme)
    assert (record.session.client, record.session.port) == ("unix:", 0)
    assert not path.exists()


async def test_clients_without_an_address_are_not_counted_as_one(tmp_path: Path) -> None:
    """`max_connections_per_address` is no limit of a proxy's, which comes for all of them."""
    path = tmp_path / "h2log.sock"
    async with Running(
        telling(), None, server={"unix": str(path)}, max_connections_per_address=1
    ) as server:
        clients = [await asyncio.open_unix_connection(path) for _ in range(3)]
        for reader, writer in clients:
            writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        for _, writer in clients:
            writer.close()
        assert len({record.session.id for record in await server.logged(3)}) == 3


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("secure", [True, False])
def test_the_command(certs: Certificates, tmp_path: Path, count: int, secure: bool) -> None:
    """`--unix PATH`: the address stands first, the command that is shown works, the file goes."""
    path = tmp_path / "a b.sock"
    log = tmp_path / "access.log"
    arguments = ["--unix", str(path), "--workers", str(count)]
    with Process("run", APP, *arguments, certs=certs if secure else None, log=log) as server:
        scheme = "https" if secure else "http"
        assert server.stdout.lines[0] == server.url == f"{scheme}://unix:{path}"
        assert owned(path) == 0o666
        shown = server.stdout.wait(lambda line: line.startswith("try"))
        command = shlex.split(shown.removeprefix("try"))
        assert command[0] == "curl" and "--unix-socket" in command
        command[0] = tool("curl")
        done = subprocess.run([*command, "-sS"], capture_output=True, text=True, check=True)
        assert (
            json.loads(done.stdout.partition("\r\n\r\n")[2] or done.stdout.split("\n\n")[-1])[
                "client"
            ]
            == "unix:"
        )
        assert server.stop() == 0
    assert not path.exists()


def test_workers_share_it_and_a_reload_moves_it(tmp_path: Path) -> None:
    """After a reload with another path the old file is gone, and the new one is served."""
    old, new = tmp_path / "old.sock", tmp_path / "new.sock"
    config = tmp_path / "h2log.toml"
    config.write_text(f'[server]\nunix = "{old}"\nworkers = 2\nunix_mode = "600"\n')
    arguments = ["run", APP, "--config", str(config)]
    with Process(*arguments, certs=None, log=tmp_path / "access.log") as server:
        assert owned(old) == 0o600
        config.write_text(config.read_text().replace("old.sock", "new.sock"))
        server.signal(signal.SIGHUP)
        poll(lambda: new.exists() and not old.exists())
        done = subprocess.run(
            [tool("curl"), "-sS", "--unix-socket", str(new), "http://localhost/"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["client"] == "unix:"
        new.unlink()  # as those who clean /tmp do: the next reload makes it again
        server.signal(signal.SIGHUP)
        poll(lambda: accepts(new))
        # Its permissions are set before the first client can be accepted, not when it appears.
        assert owned(new) == 0o600
        assert server.stop() == 0
    assert not new.exists()


# Its file


def test_a_folder_that_may_be_written_but_not_listed() -> None:
    """Is enough for a socket."""
    nobody, before = 65534, os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        try:
            if before == 0:  # who may list every folder
                os.chown(folder, nobody, -1)
                os.seteuid(nobody)
            os.chmod(folder, 0o300)
            bind_unix(f"{folder}/a.sock", 0o600, 1).close()
        finally:
            os.seteuid(before)
            os.chmod(folder, 0o700)


def test_a_stale_file_is_replaced(tmp_path: Path) -> None:
    """One that a server left behind that was killed; one that somebody listens on is left alone."""
    path = tmp_path / "h2log.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
        with pytest.raises(UsageError, match=r"another program does; stop it, or .* --unix"):
            bind_unix(str(path), 0o600, 10)
        assert path.exists()
    first = bind_unix(str(path), 0o640, 10)
    assert owned(path) == 0o640
    with pytest.raises(UsageError, match="another program does"):
        bind_unix(str(path), 0o600, 10)
    first.close()
    assert not path.exists()


def test_a_full_backlog_is_somebody_who_listens(tmp_path: Path) -> None:
    """A server that is too busy to accept is not taken for a dead one."""
    path = tmp_path / "h2log.sock"
    with bind_unix(str(path), 0o600, 0):
        waiting = []
        for _ in range(5):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(str(path)):
                break
        with pytest.raises(UsageError, match="another program does"):
            bind_unix(str(path), 0o600, 10)
        for client in waiting:
            client.close()


def test_only_its_own_file_is_removed(tmp_path: Path) -> None:
    """Somebody else's at the same path stays, and closing twice is closing once."""
    path = tmp_path / "h2log.sock"
    ours = bind_unix(str(path), 0o600, 10)
    path.unlink()
    with bind_unix(str(path), 0o600, 10):
        ours.close()
        assert path.exists()
    ours.close()
    assert not path.exists()


def test_a_folder_that_is_left_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path means the folder where the server began."""
    monkeypatch.chdir(tmp_path)
    listener = bind_unix("h2log.sock", 0o600, 10)
    assert place_of(listener) == (f"unix:{tmp_path / 'h2log.sock'}", 0)
    monkeypatch.chdir("/")
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_begin_at_once_one_serves(tmp_path: Path) -> None:
    """Over a stale file, too: no two find it stale and remove each other's."""
    path = tmp_path / "h2log.sock"
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        made: list[socket.socket] = []
        failures: list[UsageError] = []
        begin = threading.Barrier(4)

        def bind(
            made: list[socket.socket] = made,
            failures: list[UsageError] = failures,
            begin: threading.Barrier = begin,
        ) -> None:
            begin.wait()
            try:
                made.append(bind_unix(str(path), 0o600, 10))
            except UsageError as error:
                failures.append(error)

        threads = [threading.Thread(target=bind) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(made), len(failures)) == (1, 3)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        made[0].close()
        assert not path.exists()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("file", "a file that is no socket is there; remove it, or choose another path"),
        ("no/such/folder/h2log.sock", "no folder "),
        ("x" * 120, "the path is too long"),
        ("", "a file that is no socket"),
    ],
)
def test_what_cannot_be_listened_at(tmp_path: Path, path: str, complaint: str) -> None:
    """The path and the remedy are told, and nothing that was there is touched."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError) as caught:
        bind_unix(str(tmp_path / path), 0o600, 10)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith(f"cannot listen on {tmp_path}")
    assert (tmp_path / "file").read_text() == "mine"
    assert os.listdir(tmp_path) == ["file"]


def test_a_mistake_is_told_by_the_command(tmp_path: Path) -> None:
    """Exit code 2 and one line, with one worker and with several."""
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "h2log", "run", APP, "--insecure", "--access-log"]
    command += [str(tmp_path / "log"), "--unix", str(tmp_path / "file"), "--workers"]
    for count in ("1", "2"):
        done = subprocess.run([*command, count], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "is no socket is there" in done.stderr


def test_what_wins(tmp_path: Path) -> None:
    """What was handed over, then the path, then host and port."""
    path = tmp_path / "h2log.sock"
    settings = ServerSettings(unix=str(path), port=0)
    with socket.create_server(("127.0.0.1", 0)) as given:
        assert listening(settings, [given]) == [given]
        assert not path.exists()
    [found] = listening(settings, [])
    assert place_of(found) == (f"unix:{path}", 0)
    found.close()
    [found] = listening(ServerSettings(port=0), [])
    assert place_of(found)[0] == "127.0.0.1"
    found.close()
