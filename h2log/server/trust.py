"""How a person makes a system trust the local authority."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from h2log.errors import UsageError
from h2log.server.pem import UnusableError, common_name, load_chain

__all__ = ["trust_instructions"]


def trust_instructions(
    ca_path: str | Path,
    *,
    platform: str = sys.platform,
    os_release: str | None = None,
    has: Callable[[str], object] = shutil.which,
) -> list[str]:
    """Return `where: command` lines that make this system trust the CA, and curl without that.

    `platform` is as `sys.platform`; `os_release` the text of /etc/os-release (freedesktop.org
    os-release(5)), read when it is None; `has` tells whether a tool is installed. No file is
    changed, and a CA that cannot be read only loses its own name in the lines. Raises nothing.
    """
    path = str(Path(ca_path).absolute())
    quoted = f'"{path}"' if platform == "win32" else shlex.quote(path)
    try:
        name = common_name(load_chain(Path(ca_path))[0])
    except (OSError, UsageError, UnusableError):
        name = "h2log CA"
    lines: list[str] = []
    if platform == "darwin":
        keychain = "/Library/Keychains/System.keychain"
        lines.append(
            f"macOS: sudo security add-trusted-cert -d -r trustRoot -k {keychain} {quoted}"
        )
    elif platform == "win32":
        lines.append(f"Windows: certutil -addstore -user Root {quoted}")
    else:
        if os_release is None:
            try:
                os_release = Path("/etc/os-release").read_text("utf-8", "replace")
            except OSError:
                os_release = ""
        lines += _linux_lines(quoted, shlex.quote(name), os_release, has)
    lines.append(f"curl: curl --cacert {quoted} https://localhost:8443/")
    return lines


def _linux_lines(
    path: str, name: str, os_release: str, has: Callable[[str], object]
) -> Iterator[str]:
    """Yield the lines for the system's store, and for the browsers, which have their own."""
    ids = {
        word
        for line in os_release.splitlines()
        if line.startswith(("ID=", "ID_LIKE="))
        for word in line.partition("=")[2].strip("\"' ").split()
    }
    debian, anchor = bool(ids & {"debian", "ubuntu", "alpine"}), False
    if not debian:
        anchor = bool(ids & {"fedora", "rhel", "centos", "arch", "suse", "opensuse"})
    if not debian and not anchor:
        debian, anchor = bool(has("update-ca-certificates")), bool(has("trust"))
    unknown = not debian and not anchor
    if debian or unknown:
        # Only files that end in .crt are read there: update-ca-certificates(8).
        yield (
            f"Debian, Ubuntu: sudo cp {path} /usr/local/share/ca-certificates/h2log-ca.crt"
            " && sudo update-ca-certificates"
        )
    if anchor or unknown:
        yield f"Fedora, Arch, openSUSE: sudo trust anchor {path}"
    package = "" if has("certutil") else " (certutil is in libnss3-tools or nss-tools)"
    add = f"certutil -A -t C,, -n {name} -i {path}"
    yield f'Chromium{package}: {add} -d "sql:$HOME/.pki/nssdb"'
    yield (
        f"Firefox{package}: for p in ~/.mozilla/firefox/*/cert9.db; do"
        f' {add} -d "sql:${{p%/*}}"; done'
    )
