"""A server name that no host has: the handshake fails, and the log has no alarm for it."""

from __future__ import annotations

import asyncio
import logging
import ssl

import pytest

from h2log.logfile.faults import install
from h2log.server.certificates import Certificates
from h2log.server.tls import server_context


async def test_a_server_name_that_is_not_ascii(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody can send one, as often as they like: it is told at debug level, without traceback."""
    coming, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(coming, hello, server_hostname="name.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    sent = hello.read()
    assert b"name.test" in sent
    received = ssl.MemoryBIO()
    received.write(sent.replace(b"name.test", b"n\xc3\xa4me.tes"))
    context = server_context(str(certs.cert), str(certs.key))
    server = context.wrap_bio(received, ssl.MemoryBIO(), server_side=True)
    uninstall = install(asyncio.get_running_loop())
    try:
        with caplog.at_level(logging.DEBUG, "h2log.fault"), pytest.raises(ssl.SSLError):
            server.do_handshake()
    finally:
        uninstall()
    [told] = [one for one in caplog.records if one.name == "h2log.fault"]
    assert told.levelno == logging.DEBUG
    assert told.exc_info is None
    assert "n\\xc3\\xa4me.tes" in told.getMessage()
