"""Real proxies in front of a server: HAProxy for connections, nginx for requests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["haproxy", "nginx"]

_HAPROXY = """
global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    timeout check 5s
frontend front
    bind fd@{descriptor}
    default_backend back
backend back
    {more}
    server h2log {target} {options}
"""
_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
user root;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {target};
            proxy_http_version 1.1;
            {headers}
        }}
    }}
}}
"""


def _program(name: str) -> str:
    """Return the path of a program, also of those that are in no user's path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def _serving(listener: socket.socket, *command: str, **variables: str) -> Iterator[None]:
    """Run a proxy on a socket that listens already: what comes before it is ready waits for it."""
    process = subprocess.Popen(
        command,
        pass_fds=[listener.fileno()],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=10)
        print(errors.decode("utf-8", "replace"))


@contextlib.contextmanager
def haproxy(folder: Path, target: str, options: str, more: str = "") -> Iterator[int]:
    """Run HAProxy in TCP mode; its server is `target` with `options`. Yields its port."""
    program = _program("haproxy")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = folder / "haproxy.cfg"
        config.write_text(
            _HAPROXY.format(descriptor=listener.fileno(), target=target, options=options, more=more)
        )
        with _serving(listener, program, "-db", "-f", str(config)):
            yield listener.getsockname()[1]


@contextlib.contextmanager
def nginx(folder: Path, target: str, *headers: str) -> Iterator[int]:
    """Run nginx as a proxy of HTTP; `headers` are what it sends. Yields its port."""
    program = _program("nginx")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = folder / "nginx.conf"
        lines = "\n".join(f"proxy_set_header {header};" for header in headers)
        config.write_text(_NGINX.format(folder=folder, port=port, target=target, headers=lines))
        with _serving(
            listener,
            program,
            "-p", str(folder), "-e", "stderr", "-c", str(config),
            NGINX=f"{listener.fileno()};",
        ):  # fmt: skip
            yield port
