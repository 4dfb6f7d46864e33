"""`h2log certs`: what it prints, what it takes and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from h2log.cli.certs import certs
from h2log.errors import UsageError
from h2log.server.pem import check_pair

FILES = ["ca-key.pem", "ca.pem", "localhost-key.pem", "localhost.pem"]


def run(*arguments: str | Path, color: bool = False) -> Result:
    """Run the command, which has to end well."""
    result = CliRunner().invoke(certs, [str(a) for a in arguments], color=color)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result


def refused(*arguments: str | Path) -> str:
    """Run the command, which has to raise UsageError; return its line."""
    result = CliRunner().invoke(certs, [str(a) for a in arguments])
    assert isinstance(result.exception, UsageError), result.output
    assert result.output == ""
    return str(result.exception)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_makes_both_pairs_and_says_so(tmp_path: Path) -> None:
    """Paths, names, ends, what was done, how to trust: plain where no terminal is."""
    output = run("--dir", tmp_path, "--name", "box.example", "--name", "192.0.2.7").stdout
    assert sorted(files(tmp_path)) == FILES
    assert check_pair(tmp_path / "localhost.pem", tmp_path / "localhost-key.pem") == []
    lines = output.splitlines()
    ca, leaf = (
        f"{x509.load_pem_x509_certificate(pem).not_valid_after_utc:%Y-%m-%d}"
        for pem in (files(tmp_path)["ca.pem"], files(tmp_path)["localhost.pem"])
    )
    assert lines[:4] == [
        f"authority    {tmp_path}/ca.pem, until {ca}, created",
        f"  key        {tmp_path}/ca-key.pem",
        f"certificate  {tmp_path}/localhost.pem, until {leaf}, created",
        f"  key        {tmp_path}/localhost-key.pem",
    ]
    assert lines[4].startswith("names        localhost, *.localhost, 127.0.0.1, ::1, ")
    assert lines[4].endswith(", box.example, 192.0.2.7")
    assert lines[5:7] == ["", "Trust the authority once:"]
    assert lines[-1] == f"  curl: curl --cacert {tmp_path}/ca.pem https://localhost:8443/"
    assert len(lines) >= 9
    assert "\x1b" not in output
    assert "PRIVATE" not in output


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """And says that, too."""
    run("--dir", tmp_path)
    before = files(tmp_path)
    output = run("--dir", tmp_path).stdout
    assert files(tmp_path) == before
    assert output.count(", reused\n") == 2
    assert "If the authority is not trusted here yet:" in output


def test_it_says_why_a_certificate_is_issued_anew(tmp_path: Path) -> None:
    """Other names; force; a lost key of the authority; a key that others could read."""
    run("--dir", tmp_path)
    named = run("--dir", tmp_path, "--name", "box.example").stdout
    assert ", reissued: the names changed (+box.example)\n" in named
    before = files(tmp_path)
    forced = run("--dir", tmp_path, "--name", "box.example", "--force").stdout
    assert ", reissued: forced\n" in forced
    after = files(tmp_path)
    assert [name for name in FILES if before[name] != after[name]] == FILES[2:]
    (tmp_path / "ca-key.pem").unlink()
    (tmp_path / "localhost-key.pem").chmod(0o644)
    lost = run("--dir", tmp_path, "--name", "box.example").stdout
    assert ", reissued: ca-key.pem was missing\n" in lost
    assert ", reissued: the CA is new\n" in lost
    assert "\nnote         " in lost
    assert "Trust the new authority, and forget the old one:" in lost


def test_a_terminal_gets_colours(tmp_path: Path) -> None:
    """The same text, with colours around the words."""
    output = run("--dir", tmp_path, color=True).stdout
    assert "\x1b[32mcreated\x1b[0m" in output


def test_the_folder_is_certs_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below where the person stands; the way to trust it works from anywhere."""
    monkeypatch.chdir(tmp_path)
    output = run().stdout
    assert sorted(files(tmp_path / "certs")) == FILES
    assert "certificate  certs/localhost.pem, " in output
    assert f"curl --cacert {tmp_path}/certs/ca.pem" in output


def test_a_bad_name_is_refused(tmp_path: Path) -> None:
    """The line names it, and nothing is made."""
    assert "'https://x.example'" in refused("--dir", tmp_path / "c", "--name", "https://x.example")
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Its parent is a file."""
    (tmp_path / "file").write_text("")
    line = refused("--dir", tmp_path / "file" / "certs")
    assert line.startswith(f"cannot make certificates in {tmp_path}/file/certs: Not a directory")
