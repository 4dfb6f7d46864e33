"""Certificates of clients: asked for, verified, and told to applications."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from h2log.access.record import Session
from h2log.errors import UsageError
from h2log.server.certificates import Certificates, make_certificates
from h2log.server.renewal import PairWatch
from h2log.server.tls import server_context, tls_extension
from tests.server.telling_app import telling
from tests.server.wire import Http1Client
from tests.support import Done, Process, Running, client_context, eventually, poll, run

NAME = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A, B + C"),
        x509.NameAttribute(NameOID.COMMON_NAME, "Zoë"),
    ]
)


class Pair(NamedTuple):
    """A certificate and its key, and the file that has both with the rest of the chain."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    file: Path


def issue(folder: Path, name: x509.Name, issuer: Pair | None, *, ca: bool, days: int = 30) -> Pair:
    """Issue a certificate for clients, or an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.cert.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usage, critical=False)
    cert = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    file = folder / f"{len(list(folder.iterdir()))}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + pem(cert).encode()
        + (pem(issuer.cert).encode() if issuer else b"")
    )
    return Pair(cert, key, file)


def pem(cert: x509.Certificate) -> str:
    """Return a certificate as a file has it."""
    return cert.public_bytes(serialization.Encoding.PEM).decode()


def common_name(text: str) -> x509.Name:
    """Return a name with nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Clients(NamedTuple):
    """An authority, and what it and others have issued."""

    ca: Path
    middle: Pair
    known: Pair
    expired: Pair
    stranger: Pair


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """Return an authority of clients, made once."""
    folder = tmp_path_factory.mktemp("clients")
    root = issue(folder, common_name("root"), None, ca=True)
    middle = issue(folder, common_name("middle"), root, ca=True)
    ca = folder / "ca.crt"
    ca.write_text(pem(root.cert))
    return Clients(
        ca,
        middle,
        issue(folder, NAME, middle, ca=False),
        issue(folder, NAME, middle, ca=False, days=-1),
        issue(folder, NAME, issue(folder, common_name("other"), None, ca=True), ca=False),
    )


async def curl(server: Running | Process, certs: Certificates, client: Pair | None) -> Done:
    """Ask `/` with a certificate, or with none."""
    own = ["--cert", str(client.file)] if client else []
    url = f"https://localhost:{server.port}/"
    return await run("curl", "-sS", "--http2", "-4", "--cacert", str(certs.ca), *own, url)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("mode", ["none", "optional", "required"])
async def test_who_is_let_in(
    certs: Certificates,
    clients: Clients,
    mode: str,
    version: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Required: who has a valid one. Optional: who has none, too. None: anybody, unasked."""
    caplog.set_level(logging.INFO, "h2log.server")
    tls = {} if mode == "none" else {"client_ca": str(clients.ca), "client_cert": mode}
    welcome = {
        "none": (True, True, True, True),
        "optional": (True, True, False, False),
        "required": (True, False, False, False),
    }[mode]
    most = "1.2" if version == "TLSv1.2" else "1.3"
    async with Running(telling(), certs, tls=tls) as server:
        for client, expected in zip(
            (clients.known, None, clients.expired, clients.stranger), welcome, strict=True
        ):
            own = ["--cert", str(client.file)] if client else []
            done = await run(
                "curl", "-sS", "--tls-max", most, "--cacert", str(certs.ca), *own,
                f"https://localhost:{server.port}/", "-4",
            )  # fmt: skip
            assert (done.code == 0) is expected, done.stderr
            if expected:
                assert json.loads(done.text)["client"] == "127.0.0.1"
        await server.logged(sum(welcome))
        assert {session.tls.version for session in server.sessions if session.tls} == {version}
    failed = [line.message for line in caplog.records if "TLS handshake" in line.message]
    assert len(failed) == 4 - sum(welcome)


def context_of(certs: Certificates, client: Pair | None, version: str = "") -> ssl.SSLContext:
    """Return a client's TLS side with a certificate."""
    context = client_context(certs, "http/1.1")
    if client is not None:
        context.load_cert_chain(client.file)
    if version:
        context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    return context


async def told(
    certs: Certificates, clients: Clients, client: Pair | None, version: str = ""
) -> tuple[dict[str, object], Session]:
    """Connect with a certificate; return what an application is told of the connection."""
    tls = {"client_ca": str(clients.ca), "client_cert": "optional"}
    async with Running(telling(), certs, tls=tls) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=context_of(certs, client, version)
        )
        assert (await Http1Client(reader, writer).get("/")).status == 200
        [session] = server.sessions
        assert session.tls_told is None, "nobody has asked yet"
        extension = tls_extension(session)
        assert tls_extension(session) is extension, "made once a connection"
        ours = writer.get_extra_info("ssl_object")
        name, _, _ = ours.cipher()
        [number] = [c["id"] & 0xFFFF for c in ours.context.get_ciphers() if c["name"] == name]
        writer.close()
        await eventually(lambda: not server.shared.connections)
        assert session.tls_object is None, "what the log keeps does not keep the connection"
    assert extension is not None
    assert extension["cipher_suite"] == number
    return extension, session


@pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
async def test_what_an_application_is_told(certs: Certificates, clients: Clients) -> None:
    """ASGI's `tls` extension: our certificate, the client's with its chain, its name, numbers."""
    extension, _ = await told(certs, clients, clients.known)
    assert extension["server_cert"] == ssl.DER_cert_to_PEM_cert(
        x509.load_pem_x509_certificate(certs.cert.read_bytes()).public_bytes(
            serialization.Encoding.DER
        )
    )
    assert extension["client_cert_chain"] == (pem(clients.known.cert), pem(clients.middle.cert))
    assert extension["client_cert_name"] == r"CN=Zoë,O=A\, B \+ C,C=DE"
    assert extension["client_cert_error"] is None
    assert extension["tls_version"] == 0x0304


async def test_without_a_certificate(certs: Certificates, clients: Clients) -> None:
    """An empty chain and no name; TLS 1.2 has its number."""
    extension, _ = await told(certs, clients, None, "TLSv1.2")
    assert extension["client_cert_chain"] == ()
    assert extension["client_cert_name"] is None
    assert extension["tls_version"] == 0x0303


async def test_in_cleartext_there_is_nothing() -> None:
    """The extension is for TLS only."""
    async with Running(telling(), None) as server, Http1Client.connect(server) as client:
        await client.get("/")
        assert tls_extension(server.sessions[0]) is None


async def test_a_resumed_session_has_its_certificate(certs: Certificates, clients: Clients) -> None:
    """A ticket keeps who the client was; nobody is let in by one who would not be without."""
    tls = {"client_ca": str(clients.ca), "client_cert": "required"}
    context = context_of(certs, clients.known)
    async with Running(telling(), certs, tls=tls) as server:

        def talk() -> list[bool]:
            """Ask twice, the second time with the session of the first."""
            resumed, session = [], None
            for _ in range(2):
                with (
                    socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock,
                    context.wrap_socket(
                        sock, server_hostname="localhost", session=session
                    ) as secure,
                ):
                    secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert secure.recv(65536).startswith(b"HTTP/1.1 200")
                    names.append((tls_extension(server.sessions[-1]) or {})["client_cert_name"])
                    resumed.append(bool(secure.session_reused))
                    session = secure.session
            return resumed

        names: list[str] = []
        assert await asyncio.to_thread(talk) == [False, True]
        assert names == [NAME.rfc4514_string()] * 2


def test_what_cannot_be_used(certs: Certificates, clients: Clients, tmp_path: Path) -> None:
    """The file is named, and what it should be."""
    cert, key = str(certs.cert), str(certs.key)
    nonsense, leaf = tmp_path / "nonsense.pem", tmp_path / "leaf.pem"
    nonsense.write_text("nothing")
    leaf.write_text(pem(clients.known.cert))
    for path, complaint in (
        (tmp_path / "none.pem", "no file"),
        (nonsense, "expected certificates of authorities, PEM"),
        (tmp_path, "expected certificates of authorities, PEM"),
        (leaf, "no authority's certificate is in"),
    ):
        with pytest.raises(UsageError) as caught:
            server_context(cert, key, str(path), "required")
        assert str(caught.value).startswith("tls.client_ca: ")
        assert complaint in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("count", [1, 2])
async def test_another_authority_from_now_on(
    certs: Certificates, clients: Clients, tmp_path: Path, count: int
) -> None:
    """When its file changes, the next handshakes are by it, as with the certificate itself."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(make_certificates(tmp_path / "others").ca.read_bytes())
    config = tmp_path / "h2log.toml"
    config.write_text(f'[tls]\nclient_ca = "{ca}"\nclient_cert = "required"\n')
    with Process(
        "serve", "--config", str(config), "--workers", str(count), "--log-level", "info",
        certs=certs, log=tmp_path / "access.log",
    ) as server:  # fmt: skip
        shown = server.stdout.wait(lambda line: line.startswith("try"))
        assert " --cert CLIENT.pem --key CLIENT-KEY.pem https://" in shown
        assert (await curl(server, certs, clients.known)).code != 0
        ca.write_bytes(clients.ca.read_bytes())
        who = 1 if count == 1 else count + 1  # the supervisor looks first whether it can be used
        poll(lambda: sum("is renewed" in line for line in server.stderr.lines) >= who)
        assert (await curl(server, certs, clients.known)).code == 0
        assert server.stop() == 0


def test_the_authorities_are_watched(tmp_path: Path) -> None:
    """Any of the files counts."""
    paths = [tmp_path / name for name in ("cert", "key", "ca")]
    for path in paths:
        path.write_text("a")
    watch = PairWatch([str(path) for path in paths])
    assert not watch.changed()
    paths[2].write_text("ab")
    assert not watch.changed()
    assert watch.changed()
