"""Secrets and signatures of user sessions' cookies."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.user_session_secret import (
    SECRET_BYTES,
    Signer,
    new_token,
    secrets_from_env,
    secrets_from_file,
)
from h2log.errors import UsageError

OLD, NEW = "o" * 40, "n" * 40


def test_a_signature_is_verified() -> None:
    """With the id, and that it is today's."""
    signer = Signer(NEW, "session")
    token = new_token()
    value = signer.sign(token)
    assert len(value) == 87
    assert signer.verify(value) == (token, True)


def test_a_signature_is_the_secrets_and_the_purposes() -> None:
    """Another secret, or the same one for another cookie, does not verify it."""
    value = Signer(NEW, "session").sign(new_token())
    assert Signer(OLD, "session").verify(value) is None
    assert Signer(NEW, "other").verify(value) is None
    assert Signer(NEW.encode(), "session").verify(value) is not None


def test_a_secret_is_changed_by_putting_the_new_one_in_front() -> None:
    """The first signs, all verify; who was signed by an older one is told."""
    token = new_token()
    old = Signer(OLD, "s").sign(token)
    both = Signer([NEW, OLD], "s")
    assert both.verify(old) == (token, False)
    assert both.verify(both.sign(token)) == (token, True)
    assert both.sign(token) == Signer(NEW, "s").sign(token)
    assert Signer(NEW, "s").verify(old) is None


def test_every_change_of_a_value_is_noticed() -> None:
    """Each character of it counts, to the last bit; so does its length."""
    signer = Signer(NEW, "s")
    value = signer.sign(new_token())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place in range(len(value)):
        for char in alphabet if place == len(value) - 1 else "Aa.":
            if value[place] != char:
                assert signer.verify(value[:place] + char + value[place + 1 :]) is None
    for wrong in (value[:-1], value + "A", f" {value}", f"{value}\n", f"{value}=", value * 1000):
        assert signer.verify(wrong) is None


@given(st.text(max_size=200))
def test_any_other_text_is_none(text: str) -> None:
    """Whatever somebody sends."""
    assert Signer(NEW, "s").verify(text) is None


@pytest.mark.parametrize("secret", ["", "short", "x" * (SECRET_BYTES - 1), b"", ["x" * 40, "y"]])
def test_a_short_secret_is_refused_with_the_remedy(secret: str | bytes | list[str]) -> None:
    """It says how long it has to be and how to make one."""
    with pytest.raises(ValueError, match=r"at least 32 are needed.*token_urlsafe"):
        Signer(secret, "s")


def test_no_secret_is_refused() -> None:
    """Neither an empty list nor something else will do."""
    with pytest.raises(ValueError, match="need a secret"):
        Signer([], "s")
    with pytest.raises(TypeError, match="text or bytes, not int"):
        Signer([7], "s")  # type: ignore[list-item]


def test_secrets_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One or several, separated by white space; what is wrong names the variable."""
    monkeypatch.setenv("SESSION_SECRET", f" {NEW}\n{OLD} ")
    assert secrets_from_env("SESSION_SECRET") == [NEW, OLD]
    monkeypatch.setenv("SESSION_SECRET", f"{NEW} short")
    with pytest.raises(UsageError, match=r"SESSION_SECRET: .* 5 bytes.*token_urlsafe"):
        secrets_from_env("SESSION_SECRET")
    for value in ("", " "):
        monkeypatch.setenv("SESSION_SECRET", value)
        with pytest.raises(UsageError, match=r"SESSION_SECRET is not set.*token_urlsafe"):
            secrets_from_env("SESSION_SECRET")
    monkeypatch.delenv("SESSION_SECRET")
    with pytest.raises(UsageError, match="SESSION_SECRET is not set"):
        secrets_from_env("SESSION_SECRET")


def test_secrets_from_a_file(tmp_path: Path) -> None:
    """One a line, without comments."""
    path = tmp_path / "secrets"
    path.write_text(f"# since November\n{NEW}\n\n  {OLD}  \n")
    path.chmod(0o600)
    assert secrets_from_file(path) == [NEW, OLD]


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0, "not found: make one"),
        (b"", 0o600, "has no secret: make one"),
        (b"# nothing\n\n", 0o600, "has no secret"),
        (b"short\n", 0o600, "5 bytes"),
        (b"\xff" * 40, 0o600, "is no text"),
        (NEW.encode(), 0o640, "open to other users: chmod 600"),
        (NEW.encode(), 0o604, "open to other users: chmod 600"),
    ],
)
def test_a_wrong_file_is_named(
    tmp_path: Path, content: bytes | None, mode: int, words: str
) -> None:
    """Each mistake is a UsageError with the file and the remedy."""
    path = tmp_path / "secrets"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(UsageError, match=words) as caught:
        secrets_from_file(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """Nor can one be made where there is no folder."""
    with pytest.raises(UsageError, match="cannot be read: is a directory"):
        secrets_from_file(tmp_path)
    with pytest.raises(UsageError, match="not found"):
        secrets_from_file(tmp_path / "no" / "secrets", create=True)


def test_a_file_is_made_once(tmp_path: Path) -> None:
    """For its owner alone, whole, the same for all who come at once; it stays then."""
    path = tmp_path / "secrets"
    found: list[list[str]] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append(secrets_from_file(path, create=True))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(one == found[0] for one in found)
    assert len(found[0][0]) >= SECRET_BYTES
    assert secrets_from_file(path, create=True) == found[0] == secrets_from_file(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secrets"]
