"""Settings of where to listen, and whom to let in and to believe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from h2log.cli.checks import CHECKS
from h2log.config import Settings, build, load
from h2log.errors import UsageError


def refusal(values: dict[str, Any]) -> str:
    """Return what is said of wrong values."""
    with pytest.raises(UsageError) as caught:
        build(values, checks=CHECKS)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"server": {"proxy_protocol": ["10.0.0.0/8", "10.0.0.1/8"]}},
            "server.proxy_protocol[1]: '10.0.0.1/8' has bits beyond its prefix; did you mean "
            '"10.0.0.0/8"?',
        ),
        (
            {"server": {"proxy_headers": ["nginx"]}},
            "server.proxy_headers[0]: 'nginx' is no network",
        ),
        (
            {"server": {"proxy_headers": "10.0.0.0/8"}},
            'server.proxy_headers: expected a list of networks such as "10.0.0.0/8", addresses, '
            '"unix" or "*", got "10.0.0.0/8"',
        ),
        ({"server": {"proxy_headers": [""]}}, "server.proxy_headers: expected a list"),
        ({"server": {"unix_mode": "rw"}}, 'server.unix_mode: expected an octal mode such as "660"'),
        ({"server": {"unix_mode": ""}}, "server.unix_mode: expected an octal mode"),
        ({"server": {"fd": -2}}, "server.fd: expected int >= -1"),
        ({"server": {"fd": 3, "unix": "a"}}, "server.fd: server.unix is set, too; leave one out"),
        ({"server": {"forwarded_header": "both"}}, "expected one of auto, forwarded, x-forwarded"),
        (
            {"tls": {"client_cert": "required"}},
            'tls.client_ca: is missing, as tls.client_cert is "required"',
        ),
        (
            {"tls": {"client_ca": "ca.pem"}},
            "tls.client_ca: clients are not asked for a certificate; set tls.client_cert to",
        ),
        (
            {"tls": {"client_ca": "a", "client_cert": "optional"}, "server": {"insecure": True}},
            "tls.client_cert: there are no certificates in cleartext (server.insecure)",
        ),
        ({"tls": {"client_cert": "yes"}}, "tls.client_cert: expected one of none, optional"),
    ],
)
def test_what_is_wrong(values: dict[str, Any], said: str) -> None:
    """The key, what is wrong with it, and the remedy."""
    assert said in refusal(values)


def test_lists_come_from_every_source(tmp_path: Path) -> None:
    """A file's list, and JSON in the environment."""
    file = tmp_path / "h2log.json"
    file.write_text(json.dumps({"server": {"proxy_headers": ["unix", "::1"]}}))
    environ = {"H2LOG_SERVER_PROXY_PROTOCOL": '["*"]'}
    server = load(str(file), environ, checks=CHECKS).settings.server
    assert (server.proxy_headers, server.proxy_protocol) == (("unix", "::1"), ("*",))


def test_nobody_is_believed_by_default() -> None:
    """Trust is what somebody asks for."""
    server, tls = Settings().server, Settings().tls
    assert (server.proxy_headers, server.proxy_protocol, tls.client_cert) == ((), (), "none")
