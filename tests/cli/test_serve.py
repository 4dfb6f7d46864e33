"""`h2log serve` as a person or a supervisor meets it: a real process."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from h2log.access.lines import parse
from h2log.server.certificates import Certificates, make_certificates
from tests.support import PATIENCE, Process, client_context, tool

ROOT = Path(__file__).parent.parent.parent


def client(certs: Certificates) -> httpx.Client:
    """Return a client that trusts our authority."""
    return httpx.Client(verify=client_context(certs), http2=True)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with one file."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("home")
    return folder


# Starting and stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_listens_answers_logs_and_stops(
    certs: Certificates, site: Path, tmp_path: Path, number: int
) -> None:
    """The first line of standard output is the address; a signal ends it with code 0."""
    log = tmp_path / "logs" / "access.log"
    with Process("serve", str(site), certs=certs, log=log) as server:
        assert server.stdout.lines[0] == server.url == f"https://127.0.0.1:{server.port}"
        with client(certs) as http:
            response = http.get(f"{server.url}/")
        assert (response.status_code, response.text) == (200, "home")
        assert response.http_version == "HTTP/2"
        server.signal(number)
        assert server.wait() == 0
        assert server.stderr.end() == []
        out = server.stdout.end()
    assert f"access log  {log}" in out
    assert f"try         curl -i --cacert {certs.ca} {server.url}/" in out
    [line] = server.lines
    assert (line.status, line.version, line.path) == (200, "h2", "/")
    assert line.request == response.headers["x-request-id"]


def test_without_a_folder_it_serves_the_sample(certs: Certificates, tmp_path: Path) -> None:
    """There is something to see at the first start."""
    with Process("serve", certs=certs, log=tmp_path / "log") as server, client(certs) as http:
        assert http.get(f"{server.url}/").status_code == 200


def test_cleartext_is_asked_for(site: Path, tmp_path: Path) -> None:
    """The address says http, and no certificate is needed."""
    with Process("serve", str(site), certs=None, log=tmp_path / "log") as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert httpx.get(f"{server.url}/").text == "home"
        assert server.stop() == 0


def test_a_log_on_standard_output_is_alone_there(certs: Certificates, site: Path) -> None:
    """The address, then lines and nothing else; what helps a person is on standard error."""
    with Process("serve", str(site), certs=certs, log="-", noisy=True) as server:
        with client(certs) as http:
            for n in range(5):
                http.get(f"{server.url}/{n}")
        assert server.stop() == 0
        first, *rest = server.stdout.end()
        errors = server.stderr.end()
    assert first == server.url
    assert [parse(line).path for line in rest] == [f"/{n}" for n in range(5)]
    assert any(line.startswith("access log  standard output") for line in errors)
    assert "Traceback" not in "\n".join(errors)


def test_a_log_whose_reader_has_gone_stops_nothing(certs: Certificates, site: Path) -> None:
    """`h2log serve --access-log - | head -1` goes on serving, and can be stopped."""
    command = [sys.executable, "-m", "h2log", "serve", str(site), "--port", "0"]
    command += ["--cert", str(certs.cert), "--key", str(certs.key), "--access-log", "-"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            url = process.stdout.readline().strip()
            process.stdout.close()
            with client(certs) as http:
                for _ in range(3):
                    assert http.get(f"{url}/").status_code == 200
            process.send_signal(signal.SIGTERM)
            errors = process.stderr.read()
            process.wait(PATIENCE)
        finally:
            process.kill()
    assert "lines could not be written to -" in errors
    assert "Traceback" not in errors


def test_a_log_whose_reader_stalls_does_not_prevent_the_end(
    certs: Certificates, site: Path
) -> None:
    """Nobody reads standard output: requests are answered, and a signal ends the process."""
    reader, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "h2log", "serve", str(site), "--port", "0"]
    command += ["--cert", str(certs.cert), "--key", str(certs.key), "--access-log", "-"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    try:
        with open(reader, closefd=False) as stdout:
            url = stdout.readline().strip()
        with client(certs) as http:
            for n in range(10):
                assert http.get(f"{url}/?{'x' * 2000}{n}").status_code == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(reader)
    assert process.returncode == 1  # lines were lost
    assert "lines could not be written to -" in errors
    assert "Traceback" not in errors


def test_a_second_start_is_told_of_the_first(
    certs: Certificates, site: Path, tmp_path: Path
) -> None:
    """The port is in use: one line, code 2; the first goes on, and so does its log."""
    log = tmp_path / "log"
    with Process("serve", str(site), certs=certs, log=log) as server:
        code, line = mistake(
            *("serve", str(site), "--cert", str(certs.cert), "--key", str(certs.key)),
            *("--port", str(server.port), "--access-log", str(log)),
        )
        assert code == 2
        assert line == (
            f"h2log: cannot listen on 127.0.0.1:{server.port}: the port is in use; stop the other "
            "program, or choose another with --port"
        )
        with client(certs) as http:
            assert http.get(f"{server.url}/").status_code == 200
        assert server.stop() == 0
        assert len(server.lines) == 1


# Mistakes


def mistake(*arguments: str, cwd: Path = ROOT, before: Sequence[str] = ()) -> tuple[int, str]:
    """Run a command that must fail at once; return its code and its one line."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "h2log", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("h2log: ")
    return done.returncode, lines[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certs: Certificates) -> Path:
    """Return a folder with all that mistakes need."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "file").write_text("no PEM")
    (folder / "empty").write_text("")
    (folder / "cert.pem").write_bytes(certs.cert.read_bytes())
    (folder / "key.pem").write_bytes(certs.key.read_bytes())
    other = make_certificates(folder / "other")
    (folder / "other-key.pem").write_bytes(other.key.read_bytes())
    cut = certs.cert.read_text().splitlines(keepends=True)
    (folder / "cut.pem").write_text("".join([*cut[:4], cut[-1]]))
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], ["nothing"]),
        (["file"], ["file is not a folder"]),
        (["file/sub"], ["file/sub"]),
        (["--cert", "nothing.pem"], ["certificate nothing.pem not found", "h2log certs"]),
        (["--key", "nothing.pem"], ["key nothing.pem not found"]),
        (["--cert", "other"], ["certificate other cannot be read", "is a directory"]),
        (["--key", "other"], ["key other cannot be read", "is a directory"]),
        (["--cert", "file"], ["certificate file holds no readable PEM certificate"]),
        (["--cert", "empty"], ["certificate empty holds no readable PEM certificate"]),
        (["--cert", "cut.pem"], ["certificate cut.pem holds no readable PEM certificate"]),
        (["--cert", "key.pem"], ["certificate key.pem holds no readable PEM certificate"]),
        (["--key", "file"], ["key file holds no readable PEM private key"]),
        (["--key", "cert.pem"], ["key cert.pem holds no readable PEM private key"]),
        (["--key", "other-key.pem"], ["key other-key.pem does not match certificate cert.pem"]),
        (["--access-log", "other"], ["access log other", "Is a directory", "--access-log"]),
        (["--access-log", "file/log"], ["access log file/log", "Not a directory"]),
        (["--host", "nosuchhost.invalid"], ["--host nosuchhost.invalid"]),
        (["--host", "x" * 70], ["--host x"]),
        (["--host", "a..b"], ["--host a..b"]),
        (["--host", "192.0.2.1"], ["192.0.2.1", "does not have the address"]),
    ],
    ids=lambda value: " ".join(value)[:40] if value and "--" in value[0] else None,
)
def test_a_mistake_is_one_line(place: Path, arguments: list[str], words: list[str]) -> None:
    """It begins with the program's name, names the thing, has no traceback; the code is 2."""
    command = ["serve", "--cert", "cert.pem", "--key", "key.pem", "--port", "0"]
    code, line = mistake(*command, "--access-log", "log", *arguments, cwd=place)
    assert code == 2
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(("option", "what"), [("--key", "key"), ("--cert", "certificate")])
def test_a_file_that_may_not_be_read_is_named(place: Path, option: str, what: str) -> None:
    """Permission denied, in one line."""
    (place / "closed.pem").write_text("")
    (place / "closed.pem").chmod(0)
    before: list[str] = []
    if os.geteuid() == 0:  # who may read everything; but not without these two rights
        before = [tool("setpriv"), "--bounding-set=-dac_override,-dac_read_search"]
    arguments = ["serve", "--cert", "cert.pem", "--key", "key.pem", "--port", "0"]
    code, line = mistake(*arguments, option, "closed.pem", cwd=place, before=before)
    assert code == 2
    assert line.startswith(f"h2log: {what} closed.pem cannot be read: permission denied")


def test_a_port_of_another_program_is_in_use(place: Path) -> None:
    """Whoever has it: the line says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, line = mistake("serve", "--insecure", "--port", str(port), cwd=place)
    assert code == 2
    assert f"127.0.0.1:{port}: the port is in use" in line


def test_an_output_that_takes_nothing_is_one_line(place: Path) -> None:
    """When the address cannot be told, that is said, without a traceback."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "h2log", "serve", "--insecure", "--port", "0"],
            cwd=place,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("h2log: ")


def test_a_client_that_speaks_no_tls_is_not_our_mistake(
    certs: Certificates, site: Path, tmp_path: Path
) -> None:
    """Garbage on the port ends that connection, and is no traceback."""
    with Process("serve", str(site), certs=certs, log=tmp_path / "log") as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ssl.SSLError):
                ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
        with client(certs) as http:
            assert http.get(f"{server.url}/").status_code == 200
        assert server.stop() == 0
        assert server.stderr.end() == []
