"""Development certificates: what clients accept, what a run changes, and what a crash leaves."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from h2log.errors import UsageError
from h2log.server import certificates, names
from h2log.server.certificates import Action, Certificates, Step, make_certificates
from h2log.server.names import certificate_names
from h2log.server.pem import check_pair
from h2log.server.trust import trust_instructions

FILES = {"ca.pem", "ca-key.pem", "localhost.pem", "localhost-key.pem"}
EXTRA = ("box.example", "*.dev.example", "bücher.example", "192.0.2.7", "2001:db8::7")
NOW = datetime.now(UTC).replace(microsecond=0)
REUSED = Step(Action.REUSED)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of the folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def chain_of(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def common_name(path: Path) -> str:
    (name,) = chain_of(path)[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def matches(cert: Path, key: Path) -> bool:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    return chain_of(cert)[0].public_key() == private.public_key()


def store_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def self_signed(
    folder: Path,
    stem: str,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    organization: str = "Somebody else",
) -> None:
    """Store a pair that was made by other means, as `stem`.pem and `stem`-key.pem."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    (folder / f"{stem}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    store_key(folder / f"{stem}-key.pem", key)


def handshake(made: Certificates, host: str, ca: Path | None = None) -> str:
    """Shake hands in memory as a strict client of `host`; return the TLS version.

    Raises ssl.SSLCertVerificationError when the client refuses the certificate.
    """
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(made.cert, made.key)
    client_context = ssl.create_default_context(cafile=str(ca or made.ca))
    # What Python 3.13 has by default, for the older ones too.
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    assert client_context.verify_mode is ssl.CERT_REQUIRED
    assert client_context.check_hostname
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    assert not waiting, "the handshake did not end"
    assert client.getpeercert()
    return str(client.version())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Pairs that a test only reads."""
    return make_certificates(tmp_path_factory.mktemp("shared"), EXTRA)


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    """Pairs that a test may damage."""
    return make_certificates(tmp_path, now=NOW)


# -- what clients accept ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "::1",
        "box.example",
        "a.dev.example",
        "bücher.example",
        "xn--bcher-kva.example",
        "192.0.2.7",
        "2001:db8::7",
        "2001:0db8:0:0::7",
    ],
)
def test_a_strict_client_accepts_every_kind_of_name(shared: Certificates, host: str) -> None:
    """VERIFY_X509_STRICT, the chain to the CA and the name: all hold in a real handshake."""
    assert handshake(shared, host) == "TLSv1.3"


def test_a_strict_client_accepts_the_name_of_this_machine(tmp_path: Path) -> None:
    """The host's name is in the certificate without being asked for."""
    machine = socket.gethostname()
    try:
        expected = names.normal_name(machine)
    except UsageError:
        pytest.skip(f"the name of this machine, {machine!r}, cannot stand in a certificate")
    made = make_certificates(tmp_path)
    assert expected in made.names
    assert handshake(made, machine) == "TLSv1.3"


@pytest.mark.parametrize(
    "host", ["example.com", "dev.example", "a.b.dev.example", "127.0.0.2", "::2", "localhost.evil"]
)
def test_a_strict_client_refuses_other_names(shared: Certificates, host: str) -> None:
    """The handshake above does check names."""
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(shared, host)


def test_a_strict_client_refuses_another_authority(shared: Certificates, tmp_path: Path) -> None:
    """The handshake above does check the chain; two authorities of one person are told apart."""
    other = make_certificates(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(shared, "localhost", ca=other.ca)
    assert chain_of(other.ca)[0].subject != chain_of(shared.ca)[0].subject


def test_a_host_below_localhost_is_accepted_when_named(tmp_path: Path) -> None:
    """OpenSSL ignores the wildcard *.localhost; the host's own name works everywhere."""
    made = make_certificates(tmp_path, ["app.localhost"])
    assert "*.localhost" in made.names
    assert handshake(made, "app.localhost") == "TLSv1.3"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    ("check", "value"),
    [
        ("-verify_hostname", "localhost"),
        ("-verify_hostname", "a.dev.example"),
        ("-verify_ip", "127.0.0.1"),
        ("-verify_ip", "::1"),
    ],
)
def test_openssl_verifies_the_chain_strictly(shared: Certificates, check: str, value: str) -> None:
    """`openssl verify -x509_strict` accepts the certificate as a TLS server's."""
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", check, value]
    done = subprocess.run(
        [*command, "-CAfile", str(shared.ca), str(shared.cert)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{shared.cert}: OK\n"), done.stderr


def test_the_authority_has_the_profile_of_rfc5280(made: Certificates) -> None:
    """CA, pathlen 0, signs certificates and CRLs only, ten years, named after its owner."""
    (ca,) = chain_of(made.ca)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value == certificates._usage(authority=True)
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    key_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    name = common_name(made.ca)
    assert f"@{socket.gethostname()}"[:20] in name
    assert name.endswith(key_id.digest.hex()[:8])
    assert len(name) <= 64
    assert ca.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert ca.not_valid_after_utc == made.ca_expires == NOW + timedelta(days=3650)
    assert ca.version is x509.Version.v3


def test_a_long_owner_fits_in_the_authority_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A common name has at most 64 characters, printable ones."""
    monkeypatch.setenv("LOGNAME", "some\nbødy" + "x" * 80)
    made = make_certificates(tmp_path)
    name = common_name(made.ca)
    assert name.startswith("h2log CA some?b?dyxxx")
    assert len(name) <= 64
    assert handshake(made, "localhost") == "TLSv1.3"


def test_a_user_without_a_name_has_an_authority_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may run as a number that no passwd entry names."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    made = make_certificates(tmp_path)
    assert common_name(made.ca).startswith("h2log CA user@")


def test_the_certificate_has_the_profile_of_rfc5280(made: Certificates) -> None:
    """serverAuth, digitalSignature, not a CA, both key identifiers, 90 days; then its CA."""
    leaf, ca = chain_of(made.cert)
    assert [ca] == chain_of(made.ca)
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    issuer_id = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    ca_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert issuer_id.key_identifier == ca_id.digest
    own_id = leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert own_id == x509.SubjectKeyIdentifier.from_public_key(leaf.public_key())
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == made.expires == NOW + timedelta(days=90)
    assert leaf.serial_number != ca.serial_number


@pytest.mark.parametrize("stem", ["ca", "localhost"])
def test_keys_are_p256_in_pkcs8(made: Certificates, stem: str) -> None:
    """ECDSA P-256, `BEGIN PRIVATE KEY`, and the key of the certificate beside it."""
    path = made.ca.parent / f"{stem}-key.pem"
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert matches(path.with_name(f"{stem}.pem"), path)


# -- names -----------------------------------------------------------------------------------------


def test_names_are_the_local_ones_the_machine_and_the_extra_ones_once() -> None:
    """In that order, lower case, addresses in their shortest form, a name given twice once."""
    extra = ["Box.Example", "box.example.", "0:0::0:1", "*.Dev.Example", "BÜCHER.example"]
    assert certificate_names(extra, "Machine.lan") == (
        "localhost",
        "*.localhost",
        "127.0.0.1",
        "::1",
        "machine.lan",
        "box.example",
        "*.dev.example",
        "xn--bcher-kva.example",
    )


@pytest.mark.parametrize("machine", ["my_machine", "", "4711", "a" * 64, "*", "localhost"])
def test_a_machine_name_that_cannot_stand_there_is_left_out(machine: str) -> None:
    """The person did not choose it here, so it is not their mistake."""
    assert certificate_names((), machine) == ("localhost", "*.localhost", "127.0.0.1", "::1")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        " ",
        "a b",
        "a..b",
        ".example",
        "-a.example",
        "a-.example",
        "my_host",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
        "bücher" * 12 + ".example",
        "https://box.example",
        "box.example:8443",
        "me@box.example",
        "box.example\n",
        "box\0.example",
        "*",
        "*.",
        "*.com",
        "**.dev.example",
        "a*.dev.example",
        "*.*.example",
        "dev.*.example",
        "*.127.0.0.1",
        "1.2.3",
        "256.0.0.1",
        "127.0.0.1.",
        "0x7f.0x1",
        "10.0.0.0/8",
        "[::1]",
        "fe80::1%eth0",
        "straße.example",
    ],
)
def test_a_bad_name_is_named_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    """UsageError, one line, with the name as it was given; the folder stays as it is."""
    with pytest.raises(UsageError) as caught:
        make_certificates(tmp_path / "certs", ["box.example", name])
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# -- files -----------------------------------------------------------------------------------------


def test_the_first_run_creates_four_files(tmp_path: Path) -> None:
    """The result says where they are and what is in them; the folder is made."""
    folder = tmp_path / "new" / "certs"
    made = make_certificates(folder, ["box.example"])
    assert set(contents(folder)) == FILES
    assert {made.ca, made.ca_key, made.cert, made.key} == {folder / name for name in FILES}
    assert (made.ca_step, made.step) == (Step(Action.CREATED), Step(Action.CREATED))
    assert made.names == certificate_names(["box.example"])
    assert made.notes == ()


def test_a_key_is_closed_to_others_before_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the umask would leave everything open; certificates are for everyone to read."""
    created: dict[str, tuple[int, int]] = {}
    real_open = os.open

    def spy(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL
            assert path.parent == tmp_path
            found = os.fstat(descriptor)
            created[path.name[22:]] = (stat.S_IMODE(found.st_mode), found.st_size)
        return descriptor

    old = os.umask(0)
    try:
        monkeypatch.setattr(os, "open", spy)
        make_certificates(tmp_path)
    finally:
        os.umask(old)
    modes = {
        "ca.pem": 0o644,
        "ca-key.pem": 0o600,
        "localhost.pem": 0o644,
        "localhost-key.pem": 0o600,
    }
    assert created == {name: (mode, 0) for name, mode in modes.items()}
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == modes


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """Not a byte, not a file, not a time stamp; the order of the names is no change."""
    first = make_certificates(tmp_path, EXTRA)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    second = make_certificates(tmp_path, [*reversed(EXTRA), "BOX.example"])
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert after == before
    assert len(after) == 4
    assert (second.ca_step, second.step) == (REUSED, REUSED)
    assert (second.expires, second.ca_expires) == (first.expires, first.ca_expires)


def test_an_open_key_is_closed_and_it_says_so(made: Certificates) -> None:
    """A copied folder often loses its modes; the content is reused."""
    before = contents(made.ca.parent)
    made.key.chmod(0o644)
    made.ca_key.chmod(0o640)
    again = make_certificates(made.ca.parent, now=NOW)
    assert [note.partition(" ")[0] for note in again.notes] == [str(made.ca_key), str(made.key)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (made.key, made.ca_key)} == {0o600}
    assert (again.ca_step, again.step) == (REUSED, REUSED)
    assert contents(made.ca.parent) == before


def test_two_runs_at_once_make_one_authority(tmp_path: Path) -> None:
    """The second waits for the first, then reuses what it made."""
    results: list[Certificates] = []
    gate = threading.Barrier(4)

    def run() -> None:
        gate.wait()
        results.append(make_certificates(tmp_path))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    actions = sorted((result.ca_step.action, result.step.action) for result in results)
    assert actions == [(Action.CREATED, Action.CREATED)] + [(Action.REUSED, Action.REUSED)] * 3
    assert handshake(results[0], "localhost") == "TLSv1.3"


# -- reasons to issue anew -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ((), ("box.example",), "(+box.example)"),
        (("box.example",), (), "(-box.example)"),
        (("192.0.2.7", "a.example"), ("192.0.2.8", "a.example"), "(+192.0.2.8 -192.0.2.7)"),
    ],
)
def test_other_names_issue_the_certificate_anew(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], change: str
) -> None:
    """More, fewer or other names; the authority, its trust, and the pair's key stay."""
    first = make_certificates(tmp_path, before, now=NOW)
    old = contents(tmp_path)
    second = make_certificates(tmp_path, after, now=NOW)
    assert second.ca_step == REUSED
    assert second.step == Step(Action.REISSUED, f"the names changed {change}")
    new = contents(tmp_path)
    assert {name for name in FILES if old[name] != new[name]} == {"localhost.pem"}
    assert second.names != first.names
    for name in after:
        assert handshake(second, name) == "TLSv1.3"


@pytest.mark.parametrize(
    ("passed", "reason"),
    [
        (timedelta(days=59, hours=23, minutes=59, seconds=59), None),
        (timedelta(days=60), "it had 30 days left"),
        (timedelta(days=89, hours=1), "it had 0 days left"),
        (timedelta(days=91), f"it expired on {NOW + timedelta(days=90):%Y-%m-%d}"),
        (-timedelta(minutes=5), None),
        (-timedelta(days=1), f"it was valid only from {NOW - timedelta(minutes=5):%Y-%m-%d}"),
    ],
)
def test_time_issues_the_certificate_anew(
    made: Certificates, passed: timedelta, reason: str | None
) -> None:
    """A third of its 90 days left or less: it is not for others to find out."""
    folder = made.ca.parent
    before = contents(folder)
    again = make_certificates(folder, now=NOW + passed)
    if reason is None:
        assert again.step == REUSED
        assert contents(folder) == before
        return
    assert again.step.action is Action.REISSUED
    # A clock before its beginning makes the CA invalid as well.
    assert again.step.reason == ("the CA is new" if passed < timedelta(0) else reason)
    assert again.ca_step == (REUSED if passed > timedelta(0) else Step(Action.REISSUED, reason))
    assert again.expires == NOW + passed + timedelta(days=90)


@pytest.mark.parametrize(
    ("left", "fault"), [(90, None), (89, "it expires on"), (-1, "it expired on")]
)
def test_an_authority_outlives_what_it_issues(
    made: Certificates, left: int, fault: str | None
) -> None:
    """It is replaced when a new certificate would end after it."""
    now = made.ca_expires - timedelta(days=left)
    again = make_certificates(made.ca.parent, now=now)
    if fault is None:
        assert again.ca_step == REUSED
        assert again.expires == made.ca_expires
    else:
        assert again.ca_step == Step(Action.REISSUED, f"{fault} {made.ca_expires:%Y-%m-%d}")
        assert again.step == Step(Action.REISSUED, "the CA is new")
        assert again.ca_expires == now + timedelta(days=3650)


def test_force_issues_anew_with_a_new_key(made: Certificates) -> None:
    """The remedy for a leaked key; the authority stays, so nothing has to be trusted again."""
    before = contents(made.ca.parent)
    again = make_certificates(made.ca.parent, force=True, now=NOW)
    assert (again.ca_step, again.step) == (REUSED, Step(Action.REISSUED, "forced"))
    after = contents(made.ca.parent)
    changed = {name for name in FILES if before[name] != after[name]}
    assert changed == {"localhost.pem", "localhost-key.pem"}
    assert handshake(again, "localhost") == "TLSv1.3"


def test_now_has_to_be_aware(tmp_path: Path) -> None:
    """A naive time would be off by the zone of whoever made it."""
    with pytest.raises(ValueError, match="aware"):
        make_certificates(tmp_path, now=datetime(2026, 1, 1))


# -- repair ----------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def garble(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    lines[1] = b"A" * len(lines[1])
    path.write_bytes(b"\n".join(lines))


def binary(path: Path) -> None:
    path.write_bytes(b"\x30\x82\xff\x00")


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (remove, "was missing"),
    (empty, "holds no readable PEM"),
    (cut, "holds no readable PEM"),
    (garble, "holds no readable PEM"),
    (binary, "holds no readable PEM"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGE)
@pytest.mark.parametrize("file", ["ca.pem", "ca-key.pem"])
def test_a_broken_authority_is_replaced_with_what_it_issued(
    made: Certificates, file: str, damage: Callable[[Path], None], reason: str
) -> None:
    """A new CA and a new certificate, and it says so; the next run has nothing to do."""
    before = contents(made.ca.parent)
    damage(made.ca.parent / file)
    again = make_certificates(made.ca.parent, now=NOW)
    assert again.ca_step.action is Action.REISSUED
    assert again.ca_step.reason.startswith(f"{file} {reason}")
    assert again.step == Step(Action.REISSUED, "the CA is new")
    after = contents(made.ca.parent)
    assert set(after) == FILES
    changed = {name for name in FILES if before[name] != after[name]}
    assert changed == {"ca.pem", "ca-key.pem", "localhost.pem"}
    assert handshake(again, "localhost") == "TLSv1.3"
    once_more = make_certificates(made.ca.parent, now=NOW)
    assert (once_more.ca_step, once_more.step) == (REUSED, REUSED)


@pytest.mark.parametrize(("damage", "reason"), DAMAGE)
@pytest.mark.parametrize("file", ["localhost.pem", "localhost-key.pem"])
def test_a_broken_certificate_or_key_is_replaced(
    made: Certificates, file: str, damage: Callable[[Path], None], reason: str
) -> None:
    """The authority stays; a key that is good stays too."""
    before = contents(made.ca.parent)
    damage(made.ca.parent / file)
    again = make_certificates(made.ca.parent, now=NOW)
    assert again.ca_step == REUSED
    assert again.step.action is Action.REISSUED
    assert again.step.reason.startswith(f"{file} {reason}")
    after = contents(made.ca.parent)
    changed = {name for name in FILES if before[name] != after.get(name)}
    assert changed == {file, "localhost.pem"}
    assert handshake(again, "localhost") == "TLSv1.3"
    assert make_certificates(made.ca.parent, now=NOW).step == REUSED


@pytest.mark.parametrize("stem", ["ca", "localhost"])
def test_a_mismatched_pair_is_repaired(made: Certificates, stem: str) -> None:
    """What a copy of half a folder leaves."""
    store_key(made.ca.parent / f"{stem}-key.pem", ec.generate_private_key(ec.SECP256R1()))
    again = make_certificates(made.ca.parent, now=NOW)
    step = again.ca_step if stem == "ca" else again.step
    assert step == Step(Action.REISSUED, f"{stem}-key.pem did not match {stem}.pem")
    assert again.ca_step == (REUSED if stem == "localhost" else step)
    assert stat.S_IMODE(again.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(again.ca_key.stat().st_mode) == 0o600
    assert handshake(again, "localhost") == "TLSv1.3"


def test_a_key_of_another_kind_is_not_kept(made: Certificates) -> None:
    """It is replaced like one that is missing."""
    store_key(made.key, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    again = make_certificates(made.ca.parent, now=NOW)
    assert again.step.action is Action.REISSUED
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert handshake(again, "localhost") == "TLSv1.3"


def test_a_certificate_of_another_authority_is_replaced(made: Certificates, tmp_path: Path) -> None:
    """The CA files were copied in from another folder."""
    other = make_certificates(tmp_path / "other", now=NOW)
    shutil.copy(other.ca, made.ca)
    shutil.copy(other.ca_key, made.ca_key)
    again = make_certificates(made.ca.parent, now=NOW)
    assert again.ca_step == REUSED
    assert again.step == Step(Action.REISSUED, "the CA changed")
    assert handshake(again, "localhost", ca=other.ca) == "TLSv1.3"


def test_a_chain_without_its_authority_is_completed(made: Certificates) -> None:
    """The file is the certificate, then the CA."""
    leaf, _ = chain_of(made.cert)
    made.cert.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    again = make_certificates(made.ca.parent, now=NOW)
    assert again.step == Step(Action.REISSUED, "the chain was not certificate, then CA")
    assert len(chain_of(made.cert)) == 2


def test_a_certificate_in_the_place_of_the_authority_is_replaced(made: Certificates) -> None:
    """It has a key that matches, but nothing that it signs would be accepted."""
    shutil.copy(made.cert, made.ca)
    shutil.copy(made.key, made.ca_key)
    again = make_certificates(made.ca.parent, now=NOW)
    assert again.ca_step == Step(Action.REISSUED, "its signature was wrong")
    assert handshake(again, "localhost") == "TLSv1.3"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "it was not the certificate of an authority"),
        (ec.generate_private_key(ec.SECP384R1()), "its key was not ECDSA P-256"),
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), "its key was not ECDSA"),
    ],
)
def test_an_authority_of_another_kind_is_replaced(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, reason: str
) -> None:
    """One that is marked as made here, and is not what is made here."""
    self_signed(tmp_path, "ca", key, certificates.ORGANIZATION)
    made = make_certificates(tmp_path, now=NOW)
    assert made.ca_step.action is Action.REISSUED
    assert made.ca_step.reason.startswith(reason)
    assert made.step == Step(Action.CREATED)
    assert handshake(made, "localhost") == "TLSv1.3"


def test_damage_inside_a_certificate_is_found(made: Certificates) -> None:
    """PEM and outer DER are whole, but a name in an extension is no text any more."""
    leaf, _ = chain_of(made.cert)
    der = leaf.public_bytes(serialization.Encoding.DER)
    damaged = der.replace(b"\x82\x09localhost", b"\x82\x09\xffocalhost")
    assert damaged != der
    made.cert.write_text(ssl.DER_cert_to_PEM_cert(damaged))
    x509.load_pem_x509_certificate(made.cert.read_bytes())
    assert "holds no readable PEM certificate" in refusal(made.cert, made.key)
    again = make_certificates(made.ca.parent, now=NOW)
    assert again.step == Step(Action.REISSUED, "localhost.pem holds no readable PEM certificate")
    assert handshake(again, "localhost") == "TLSv1.3"


@pytest.mark.parametrize("stem", ["ca", "localhost"])
def test_a_working_pair_of_someone_else_is_not_overwritten(tmp_path: Path, stem: str) -> None:
    """mkcert writes localhost.pem, too; nothing is changed without force, all of it with force."""
    self_signed(tmp_path, stem, ec.generate_private_key(ec.SECP256R1()))
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=f"{stem}.pem was not made by h2log"):
        make_certificates(tmp_path)
    assert contents(tmp_path) == before
    made = make_certificates(tmp_path, force=True)
    step = made.ca_step if stem == "ca" else made.step
    assert step == Step(Action.REISSUED, f"{stem}.pem was not made by h2log")
    assert contents(tmp_path)[f"{stem}-key.pem"] != before[f"{stem}-key.pem"]
    assert handshake(made, "localhost") == "TLSv1.3"


@pytest.mark.parametrize("stem", ["ca", "localhost"])
def test_an_encrypted_key_is_left_alone(made: Certificates, stem: str) -> None:
    """Somebody protected it on purpose: no run replaces it."""
    path = made.ca.parent / f"{stem}-key.pem"
    encrypt(path, serialization.PrivateFormat.PKCS8)
    before = contents(made.ca.parent)
    with pytest.raises(UsageError, match=f"{stem}-key.pem is encrypted"):
        make_certificates(made.ca.parent, force=True)
    assert contents(made.ca.parent) == before


# -- crashes ---------------------------------------------------------------------------------------

# Ends the process, as a crash does, at the Nth rename or removal: nothing is cleaned up.
CRASH = """
import os, sys
from pathlib import Path
from h2log.server.certificates import make_certificates
folder, at, force = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "force"
os.umask(0)
count = 0
def crashing(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == at:
            os._exit(9)
        return real(*args, **kwargs)
    return call
os.replace, os.unlink = crashing(os.replace), crashing(os.unlink)
make_certificates(folder, ["crash.example"], force=force)
"""


def states(folder: Path, force: str) -> Iterator[int]:
    """Crash later and later, each time on a copy of the folder; yield until a run ends well."""
    origin = folder.with_name("origin")
    shutil.copytree(folder, origin)
    for at in range(1, 20):
        shutil.rmtree(folder)
        shutil.copytree(origin, folder)
        command = [sys.executable, "-c", CRASH, str(folder), str(at), force]
        code = subprocess.run(command, check=False, cwd=Path(__file__).parents[3]).returncode
        assert code in (0, 9)
        if code == 0:
            return
        yield at
    raise AssertionError("the run never ended well")


@pytest.mark.parametrize(
    ("start", "force", "crashes"),
    [
        ("nothing", "", 6),  # away, key, certificate: for each of the pairs
        ("other names", "", 1),  # the certificate alone: the key is kept
        ("good", "force", 3),
        ("no CA key", "", 4),
        ("no CA key", "force", 6),
    ],
)
def test_a_crash_leaves_no_mismatched_pair_and_the_next_run_repairs(
    tmp_path: Path, start: str, force: str, crashes: int
) -> None:
    """At every rename and removal; what is half written is closed to others, and goes away."""
    folder = tmp_path / "certs"
    folder.mkdir()
    if start != "nothing":
        made = make_certificates(folder, ["crash.example"] if start == "good" else [])
        if start == "no CA key":
            made.ca_key.unlink()
    count = 0
    for _ in states(folder, force):
        count += 1
        for stem in ("ca", "localhost"):
            cert, key = folder / f"{stem}.pem", folder / f"{stem}-key.pem"
            if cert.exists() and key.exists():
                assert matches(cert, key)
        for path in folder.iterdir():
            if b"PRIVATE KEY" in path.read_bytes():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
        repaired = make_certificates(folder, ["crash.example"])
        assert set(contents(folder)) == FILES
        assert handshake(repaired, "crash.example") == "TLSv1.3"
    assert count == crashes


def test_a_write_that_fails_leaves_the_old_pair_and_no_rest(
    made: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: one line names the folder and the reason."""
    before = contents(made.ca.parent)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UsageError, match=r"cannot make certificates in .*: No space left on device"
    ):
        make_certificates(made.ca.parent, ["box.example"], now=NOW)
    assert contents(made.ca.parent) == before


@pytest.mark.parametrize("below", ["file", "file/certs"])
def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, below: str) -> None:
    """The path, or the path's parent, is a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        make_certificates(tmp_path / below)
    assert str(caught.value).startswith(f"cannot make certificates in {tmp_path / below}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path, file: str) -> None:
    """What is there and cannot be read is not replaced."""
    (tmp_path / file).mkdir()
    with pytest.raises(UsageError, match=f"Is a directory: .*{file}"):
        make_certificates(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {file}


def test_a_folder_without_permission_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may do anything, so the kernel's answer is given by hand."""
    real_open = os.open

    def denied(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(UsageError, match=r"^cannot make certificates in .*: Permission denied: "):
        make_certificates(tmp_path)
    assert contents(tmp_path) == {}


# -- check_pair ------------------------------------------------------------------------------------


def encrypt(path: Path, form: serialization.PrivateFormat) -> None:
    """Encrypt a key where it is."""
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))


def refusal(cert: str | Path, key: str | Path) -> str:
    """Return the one line with which `check_pair` refuses."""
    with pytest.raises(UsageError) as caught:
        check_pair(cert, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_pair_has_no_warnings(made: Certificates) -> None:
    """As paths or as text, and with both in one file."""
    assert check_pair(made.cert, made.key) == []
    assert check_pair(str(made.cert), str(made.key)) == []
    both = made.cert.with_name("both.pem")
    both.write_bytes(made.key.read_bytes() + made.cert.read_bytes())
    assert check_pair(both, both) == []


def test_keys_of_other_kinds_are_good(tmp_path: Path) -> None:
    """The server's own certificate may come from anywhere."""
    self_signed(tmp_path, "own", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    assert check_pair(tmp_path / "own.pem", tmp_path / "own-key.pem") == []


def test_a_missing_file_is_named_with_the_remedy(made: Certificates) -> None:
    """The certificate first, then the key."""
    gone = made.ca.with_name("gone.pem")
    line = "{} {} not found: `h2log certs` makes one"
    assert refusal(gone, gone) == line.format("certificate", gone)
    assert refusal(made.cert, gone) == line.format("key", gone)


@pytest.mark.parametrize("which", ["cert", "key"])
def test_a_file_without_permission_is_named(
    made: Certificates, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read anything, so the kernel's answer is given by hand."""
    secret: Path = getattr(made, which)
    real_read = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return real_read(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    what = "certificate" if which == "cert" else "key"
    assert refusal(made.cert, made.key) == f"{what} {secret} cannot be read: permission denied"


def test_a_folder_or_an_impossible_path_is_named(made: Certificates) -> None:
    """Whatever the operating system says, it is one line."""
    folder = made.ca.parent
    assert refusal(folder, made.key) == f"certificate {folder} cannot be read: is a directory"
    assert refusal(made.cert, made.ca / "x") == (
        f"key {made.ca / 'x'} cannot be read: not a directory"
    )


@pytest.mark.parametrize("damage", [empty, cut, garble, binary])
def test_a_file_that_is_not_pem_is_named(
    made: Certificates, damage: Callable[[Path], None]
) -> None:
    """Also DER, and a damaged PEM."""
    other = make_certificates(made.ca.parent / "other")
    damage(made.key)
    assert refusal(other.cert, made.key) == f"key {made.key} holds no readable PEM private key"
    damage(made.cert)
    assert refusal(made.cert, other.key) == (
        f"certificate {made.cert} holds no readable PEM certificate"
    )


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020103")),  # version 4, which is none
        (bytes.fromhex("0603551d0e"), bytes.fromhex("0603551d0f")),  # keyUsage a second time
    ],
    ids=["version", "extension"],
)
def test_a_certificate_that_cannot_be_is_named(
    made: Certificates, there: bytes, instead: bytes
) -> None:
    """What its parser raises for no other reason than the certificate is no traceback."""
    whole = made.cert.read_text()
    first, end, rest = whole.partition("-----END CERTIFICATE-----\n")
    der = ssl.PEM_cert_to_DER_cert(first + end)
    assert there in der
    made.cert.write_text(ssl.DER_cert_to_PEM_cert(der.replace(there, instead, 1)) + rest)
    assert refusal(made.cert, made.key) == (
        f"certificate {made.cert} holds no readable PEM certificate"
    )


def test_exchanged_files_are_named(made: Certificates) -> None:
    """--cert with the key and --key with the certificate."""
    assert "holds no readable PEM certificate" in refusal(made.key, made.cert)
    assert "holds no readable PEM private key" in refusal(made.cert, made.cert)


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_an_encrypted_key_is_named(made: Certificates, form: serialization.PrivateFormat) -> None:
    """A server that starts by itself cannot ask for a passphrase."""
    encrypt(made.key, form)
    assert b"ENCRYPTED" in made.key.read_bytes()
    assert refusal(made.cert, made.key) == (
        f"key {made.key} is encrypted: store it without a passphrase"
    )


def test_a_key_of_another_certificate_is_named(made: Certificates, tmp_path: Path) -> None:
    """Of another certificate, or of another kind."""
    line = f"does not match certificate {made.cert}"
    assert refusal(made.cert, made.ca_key) == (
        f"key {made.ca_key} {line}: it matches number 2 in that file, which has to be first"
    )
    for key in (
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ):
        store_key(tmp_path / "other.pem", key)
        assert refusal(made.cert, tmp_path / "other.pem") == f"key {tmp_path / 'other.pem'} {line}"


def test_a_certificate_outside_its_time_is_a_warning(made: Certificates) -> None:
    """Both ends of the period belong to it (RFC 5280 section 4.1.2.5)."""
    begin, end, second = NOW - timedelta(minutes=5), made.expires, timedelta(seconds=1)
    assert check_pair(made.cert, made.key, now=begin) == []
    assert check_pair(made.cert, made.key, now=end) == []
    assert check_pair(made.cert, made.key, now=end + second) == [
        f"certificate {made.cert} expired on {end:%Y-%m-%d %H:%M} UTC"
    ]
    assert check_pair(made.cert, made.key, now=begin - second) == [
        f"certificate {made.cert} is not valid before {begin:%Y-%m-%d %H:%M} UTC"
    ]


# -- trust -----------------------------------------------------------------------------------------


def tools(*names: str) -> Callable[[str], object]:
    return lambda name: name if name in names else None


@pytest.mark.parametrize(
    ("platform", "os_release", "present", "expected"),
    [
        ("linux", "ID=ubuntu\nID_LIKE=debian\n", (), ["Debian, Ubuntu"]),
        ("linux", 'NAME="x"\nID="debian"\n', ("trust",), ["Debian, Ubuntu"]),
        ("linux", "ID=fedora\n", ("update-ca-certificates",), ["Fedora, Arch, openSUSE"]),
        ("linux", 'ID=opensuse-leap\nID_LIKE="suse opensuse"\n', (), ["Fedora, Arch, openSUSE"]),
        ("linux", "ID=nixos\n", ("trust",), ["Fedora, Arch, openSUSE"]),
        ("linux", "", ("update-ca-certificates",), ["Debian, Ubuntu"]),
        ("linux", "", (), ["Debian, Ubuntu", "Fedora, Arch, openSUSE"]),
    ],
)
def test_linux_is_told_apart(
    made: Certificates,
    platform: str,
    os_release: str,
    present: tuple[str, ...],
    expected: list[str],
) -> None:
    """By os-release, else by the tools; the unknown gets both; browsers and curl always."""
    lines = trust_instructions(
        made.ca, platform=platform, os_release=os_release, has=tools("certutil", *present)
    )
    where = [line.partition(": ")[0] for line in lines]
    assert where == [*expected, "Chromium", "Firefox", "curl"]
    text = dict(line.partition(": ")[::2] for line in lines)
    name = common_name(made.ca)
    assert f"certutil -A -t C,, -n '{name}' -i {made.ca} -d" in text["Chromium"]
    if "Debian, Ubuntu" in text:
        assert text["Debian, Ubuntu"].startswith(f"sudo cp {made.ca} /usr/local/share/ca-")
        assert text["Debian, Ubuntu"].endswith(".crt && sudo update-ca-certificates")
    if "Fedora, Arch, openSUSE" in text:
        assert text["Fedora, Arch, openSUSE"] == f"sudo trust anchor {made.ca}"
    assert text["curl"] == f"curl --cacert {made.ca} https://localhost:8443/"


def test_a_missing_certutil_is_said() -> None:
    """The browsers' lines say which package has it."""
    lines = trust_instructions("ca.pem", platform="linux", os_release="ID=debian", has=tools())
    assert sum("libnss3-tools" in line for line in lines) == 2


def test_macos_and_windows_have_one_store() -> None:
    """Their browsers use the system's; a path with a space is quoted as the shell there wants."""
    mac = trust_instructions("/a b/ca.pem", platform="darwin")
    assert mac[0].startswith("macOS: sudo security add-trusted-cert -d -r trustRoot -k ")
    assert mac[0].endswith(" '/a b/ca.pem'")
    assert mac[1:] == ["curl: curl --cacert '/a b/ca.pem' https://localhost:8443/"]
    windows = trust_instructions("/a b/ca.pem", platform="win32")
    assert windows[0] == 'Windows: certutil -addstore -user Root "/a b/ca.pem"'
    assert windows[1].startswith('curl: curl --cacert "/a b/ca.pem"')


def test_a_path_is_absolute_and_this_system_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines work from any folder; without arguments they are for where this runs."""
    lines = trust_instructions("certs/ca.pem")
    assert lines[-1] == f"curl: curl --cacert {Path.cwd() / 'certs/ca.pem'} https://localhost:8443/"
    assert len(lines) >= 2


@pytest.mark.skipif(shutil.which("sh") is None, reason="sh is not installed")
def test_the_firefox_line_is_a_working_loop(made: Certificates, tmp_path: Path) -> None:
    """A shell runs it for every profile, with a certutil that writes down what it gets."""
    home, tool = tmp_path / "a home", tmp_path / "bin" / "certutil"
    for profile in ("one.default", "two x"):
        (home / ".mozilla/firefox" / profile).mkdir(parents=True)
        (home / ".mozilla/firefox" / profile / "cert9.db").write_text("")
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor a; do printf "%s|" "$a"; done\necho\n')
    tool.chmod(0o755)
    (line,) = [
        line.partition(": ")[2]
        for line in trust_instructions(made.ca, platform="linux", has=tools("certutil"))
        if line.startswith("Firefox")
    ]
    environment = {"HOME": str(home), "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", line], env=environment, capture_output=True, text=True, check=True
    )
    name = common_name(made.ca)
    assert done.stdout.splitlines() == [
        f"-A|-t|C,,|-n|{name}|-i|{made.ca}|-d|sql:{home}/.mozilla/firefox/{profile}|"
        for profile in ("one.default", "two x")
    ]
