"""A syslog collector over TLS (RFC 5425): who it is, and who we are."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from h2log.errors import UsageError
from h2log.logfile.syslog import SyslogTarget
from h2log.logfile.writer import LogWriter
from h2log.server.certificates import Certificates
from tests.logfile.collector import (
    StreamCollector,
    came,
    server_side,
    with_options,
)
from tests.logfile.numbered import line, put_many
from tests.support import eventually


async def test_the_certificate_is_verified(certs: Certificates) -> None:
    """By the system's authorities unless others are named, and for the name in the URL."""
    with StreamCollector(context=server_side(certs)) as collector:
        with pytest.raises(UsageError, match=r"its certificate is not trusted: .*\?ca=FILE"):
            await LogWriter(collector.url, line).open()
        port = collector.url.rpartition(":")[2]
        with pytest.raises(UsageError, match="IP address mismatch"):
            await LogWriter(f"syslog+tls://127.0.0.2:{port}?ca={certs.ca}", line).open()
        writer = LogWriter(f"syslog+tls://127.0.0.1:{port}?ca={certs.ca}", line, 0.001)
        await writer.open()
        await put_many(writer, 1)
        await writer.close()
        await eventually(came(collector, 1))


def client_certificate(certs: Certificates, folder: Path) -> tuple[str, str]:
    """Return a certificate for a client and its key, by the same authority."""
    authority = x509.load_pem_x509_certificate(certs.ca.read_bytes())
    signer = serialization.load_pem_private_key(certs.ca_key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "web1")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        # Python 3.13 wants it (RFC 5280 section 4.2.1.1).
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), False
        )
        .sign(signer, hashes.SHA256())
    )
    paths = str(folder / "web1.pem"), str(folder / "web1-key.pem")
    Path(paths[0]).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    Path(paths[1]).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


async def test_a_certificate_of_our_own(certs: Certificates, tmp_path: Path) -> None:
    """For a collector that asks for one (RFC 5425 section 4.2.1); without it, there is no start."""
    cert, key = client_certificate(certs, tmp_path)
    context = server_side(certs)
    context.load_verify_locations(certs.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with StreamCollector(context=context) as collector:
        with pytest.raises(UsageError, match=r"TLS: .*certificate required; choose"):
            await LogWriter(with_options(collector, certs), line).open()
        writer = LogWriter(with_options(collector, certs, cert=cert, key=key), line, 0.001)
        await writer.open()
        await put_many(writer, 10)
        await writer.close()
        await eventually(came(collector, 10))
        assert collector.certificates[0]


async def test_what_speaks_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops the start with a reason."""
    monkeypatch.setattr("h2log.logfile.syslog_links.PATIENCE", 0.2)
    with StreamCollector() as collector:
        url = collector.url.replace("+tcp", "+tls")
        writer = LogWriter(url, line)
        with pytest.raises(UsageError, match="cannot open the access log"):
            await writer.open()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (lambda folder: f"ca={folder}/none", "cannot use ca=.*none: No such file or directory"),
        (lambda folder: f"ca={folder}/text", "cannot use ca=.*text: no PEM file of that kind"),
        (lambda folder: f"cert={folder}/text", "cannot use cert=.*text: no PEM file of that kind"),
        (lambda folder: f"cert={folder}", "cannot use cert="),
    ],
)
def test_certificates_that_cannot_be_read(
    options: Callable[[Path], str], reason: str, tmp_path: Path
) -> None:
    """The file is named, before anything is connected."""
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(UsageError, match=reason):
        SyslogTarget(f"syslog+tls://localhost?{options(tmp_path)}")
