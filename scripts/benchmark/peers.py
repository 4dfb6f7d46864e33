"""The servers that are measured: what each needs, its command and its settings.

All log every request to a file, speak TLS with the same certificate, use one process or thread
for requests, and have their limits on requests and connections lifted, so that a run does not
measure reconnecting. A peer that logs no line for a request says so (`logs`). None compresses while
it is asked: h2log, which by default does so once for each file, is told not to where the request's
fields ask for it (`Scenario.plain`), and compressed files are made before (`Scenario.packed`).
"""

from __future__ import annotations

import getpass
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scenarios import Scenario

__all__ = ["PACKAGES", "PEERS", "Peer", "Site"]

APPS = Path(__file__).parent / "apps"
BIN = Path(sys.executable).parent
FILES_ONLY = "serves files only"
NO_ASGI = "runs no ASGI application"
PACKAGES = ("granian", "starlette", "fastapi", "uvicorn[standard]")
"""What some peers need that pip installs and nothing else here does."""


@dataclass(frozen=True)
class Site:
    """What a server is told: where to listen, what to serve, where to log."""

    place: Path
    """A folder of the server's own, for settings and logs."""
    root: Path
    cert: Path
    key: Path
    port: int

    @property
    def log(self) -> Path:
        """The access log."""
        return self.place / "access.log"


class Peer:
    """One server; the subclasses say how it is started."""

    name: str
    what: str
    logs = True
    """Whether it writes a line for each request."""
    codings: tuple[str, ...] = ("br", "gzip")
    """Codings of compressed files that it finds beside a file, the best first."""
    chooses_port = False
    """Whether it takes port 0 and prints the URL on which it listens."""

    def missing(self) -> str | None:
        """Return what to install, None if the server is there."""
        raise NotImplementedError

    def refuses(self, scenario: Scenario) -> str | None:
        """Return why the scenario makes no sense for this server, None if it does."""
        return None

    def writes(self, scenario: Scenario) -> bool:
        """Tell whether it writes a line for each request, or each WebSocket, of the scenario."""
        return self.logs

    def version(self) -> str:
        """Return the server's version."""
        raise NotImplementedError

    def command(self, site: Site, scenario: Scenario) -> list[str]:
        """Write settings into the site's place, and return the command."""
        raise NotImplementedError

    def environment(self, site: Site) -> dict[str, str]:
        """Return the environment of the server."""
        return os.environ | {"PYTHONPATH": str(APPS), "BENCH_ROOT": str(site.root)}


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


class H2log(Peer):
    name = "h2log"
    what = "this package: `h2log serve`, or `h2log run` for a function"
    chooses_port = True

    def missing(self) -> str | None:
        return None if (BIN / "h2log").exists() else "pip install -e . into .venv"

    def version(self) -> str:
        return f"h2log {importlib.metadata.version('h2log')}"

    def command(self, site: Site, scenario: Scenario) -> list[str]:
        if scenario.plain:
            (site.place / "h2log.toml").write_text("[static]\ncompress = false\n")
        app = "h2log_routes:app" if scenario.name == "route" else "h2log_app:app"
        app = scenario.app or app
        served = ["run", app] if scenario.computed else ["serve", str(site.root)]
        options = {"--cert": site.cert, "--key": site.key, "--port": 0, "--access-log": site.log}
        return [str(BIN / "h2log"), *served, *(str(word) for kv in options.items() for word in kv)]


class Hypercorn(Peer):
    """Hypercorn in its one-process mode (`workers = 1` starts a second, idle process)."""

    name = "hypercorn"
    what = "Hypercorn, raw ASGI application that sends from memory"
    loop = "asyncio"

    def missing(self) -> str | None:
        found = importlib.util.find_spec("hypercorn")
        return None if found else "pip install hypercorn into .venv"

    def version(self) -> str:
        return f"hypercorn {importlib.metadata.version('hypercorn')}"

    def command(self, site: Site, scenario: Scenario) -> list[str]:
        settings = site.place / "hypercorn.toml"
        settings.write_text(
            f'bind = ["127.0.0.1:{site.port}"]\n'
            f'certfile = "{site.cert}"\n'
            f'keyfile = "{site.key}"\n'
            f'accesslog = "{site.log}"\n'
            f'worker_class = "{self.loop}"\n'
            "workers = 1\n"
            "backlog = 1024\n"
            "keep_alive_timeout = 120\n"
            "keep_alive_max_requests = 1000000000\n"
        )
        app = scenario.app or "asgi_app:app"
        return [sys.executable, "-m", "hypercorn", "-c", str(settings), app]


class HypercornUvloop(Hypercorn):
    """The same on uvloop, as h2log is."""

    name = "hypercorn-uvloop"
    what = "the same on uvloop"
    loop = "uvloop"

    def missing(self) -> str | None:
        found = importlib.util.find_spec("uvloop")
        return super().missing() or (None if found else "pip install uvloop into .venv")


def _log_settings(site: Site, own: str, access: str) -> Path:
    """Write settings of the standard logging: a server's own words and its requests, two files."""

    def handler(file: Path) -> dict[str, str]:
        return {"class": "logging.FileHandler", "filename": str(file), "formatter": "plain"}

    settings = site.place / "logging.json"
    log = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(message)s"}},
        "handlers": {"access": handler(site.log), "own": handler(site.place / "own.log")},
        "loggers": {
            own: {"handlers": ["own"], "level": "INFO", "propagate": False},
            access: {"handlers": ["access"], "level": "INFO", "propagate": False},
        },
    }
    settings.write_text(json.dumps(log))
    return settings


class Granian(Peer):
    """Granian (Rust) with an ASGI application."""

    name = "granian"
    what = "Granian, the same ASGI application"
    app = "asgi_app:app"
    static: tuple[str, ...] = ()

    def missing(self) -> str | None:
        found = importlib.util.find_spec("granian")
        return None if found else "scripts/bench --install-peers (pip install granian into .venv)"

    def version(self) -> str:
        return f"granian {importlib.metadata.version('granian')}"

    def command(self, site: Site, scenario: Scenario) -> list[str]:
        settings = _log_settings(site, "_granian", "granian.access")
        options = {
            "--interface": "asgi",
            "--host": "127.0.0.1",
            "--port": site.port,
            "--workers": 1,
            "--loop": "uvloop",
            "--ssl-certificate": site.cert,
            "--ssl-keyfile": site.key,
            "--log-config": settings,
        }
        words = [str(word) for kv in options.items() for word in kv]
        static = [word.format(root=site.root) for word in self.static]
        granian = [sys.executable, "-m", "granian", "--access-log"]
        return [*granian, *words, *static, scenario.app or self.app]


class GranianStatic(Granian):
    """Granian's own file server."""

    name = "granian-static"
    what = "Granian's own static files, of which it logs nothing"
    logs = False
    static = (
        "--static-path-route",
        "/article",
        "--static-path-mount",
        "{root}/article",
        "--static-path-route",
        "/large",
        "--static-path-mount",
        "{root}/large",
    )

    def refuses(self, scenario: Scenario) -> str | None:
        if scenario.packed or scenario.span:
            return "sends whole files as they are"
        return FILES_ONLY if scenario.computed else None


class Starlette(Granian):
    """A framework's routes."""

    name = "starlette"
    what = "Starlette's routes and JSONResponse, in Granian"
    app = "starlette_app:app"

    def missing(self) -> str | None:
        found = importlib.util.find_spec("starlette")
        how = "scripts/bench --install-peers (pip install starlette into .venv)"
        return super().missing() or (None if found else how)

    def version(self) -> str:
        return f"{super().version()}, starlette {importlib.metadata.version('starlette')}"

    def refuses(self, scenario: Scenario) -> str | None:
        if scenario.app:
            return "is measured as granian"
        return None if scenario.computed else "runs handlers only"


class Uvicorn(Peer):
    """uvicorn with what `uvicorn[standard]` brings: uvloop, httptools, websockets."""

    name = "uvicorn"
    what = "uvicorn on uvloop and httptools, the same ASGI application, HTTP/1.1 only"

    def missing(self) -> str | None:
        found = all(map(importlib.util.find_spec, ("uvicorn", "uvloop", "httptools", "websockets")))
        how = "scripts/bench --install-peers (pip install uvicorn[standard] into .venv)"
        return None if found else how

    def version(self) -> str:
        names = ("uvicorn", "httptools", "websockets")
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)

    def refuses(self, scenario: Scenario) -> str | None:
        return None if scenario.protocol == "http/1.1" else "speaks no HTTP/2"

    def writes(self, scenario: Scenario) -> bool:
        return not scenario.echo

    def command(self, site: Site, scenario: Scenario) -> list[str]:
        options = {
            "--host": "127.0.0.1",
            "--port": site.port,
            "--loop": "uvloop",
            "--http": "httptools",
            "--backlog": 1024,
            "--timeout-keep-alive": 120,
            "--ssl-certfile": site.cert,
            "--ssl-keyfile": site.key,
            "--log-config": _log_settings(site, "uvicorn.error", "uvicorn.access"),
        }
        words = [str(word) for kv in options.items() for word in kv]
        return [sys.executable, "-m", "uvicorn", *words, scenario.app or "asgi_app:app"]


class Nginx(Peer):
    """nginx as it comes, with an access log."""

    name = "nginx"
    codings = ("gzip",)
    what = "nginx, plain, with an access log"
    tuning = ""
    log_options = ""

    def missing(self) -> str | None:
        return None if shutil.which("nginx") else "apt install nginx"

    def version(self) -> str:
        return _first_line("nginx", "-v").removeprefix("nginx version: ")

    def refuses(self, scenario: Scenario) -> str | None:
        return FILES_ONLY if scenario.computed else None

    def command(self, site: Site, scenario: Scenario) -> list[str]:
        # A master that runs as root starts its worker as another user, who may not read the files.
        user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
        temporary = "\n".join(
            f"  {kind}_temp_path {site.place}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        settings = site.place / "nginx.conf"
        settings.write_text(
            f"""{user}
daemon off;
worker_processes 1;
pid {site.place}/nginx.pid;
error_log {site.place}/error.log;
events {{ worker_connections 8192; }}
http {{
{temporary}
  types {{ text/html html; application/octet-stream bin; }}
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  access_log {site.log} combined{self.log_options};
  {self.tuning}
  {"gzip_static on;" if scenario.packed else ""}
  server {{
    listen 127.0.0.1:{site.port} ssl http2 backlog=1024;
    ssl_certificate {site.cert};
    ssl_certificate_key {site.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    root {site.root};
  }}
}}
"""
        )
        return ["nginx", "-p", str(site.place), "-e", "stderr", "-c", str(settings)]


class NginxTuned(Nginx):
    """nginx with what its speed is usually quoted with."""

    name = "nginx-tuned"
    what = "nginx, open_file_cache and a buffered log"
    tuning = "open_file_cache max=10000 inactive=600s; open_file_cache_valid 600s;"
    log_options = " buffer=64k flush=1s"


class Node(Peer):
    """Node's http2 module."""

    name = "node"
    what = "Node http2, files from memory, log by a write stream"

    def missing(self) -> str | None:
        return None if shutil.which("node") else "apt install nodejs (18.17 or newer)"

    def refuses(self, scenario: Scenario) -> str | None:
        return NO_ASGI if scenario.app else None

    def version(self) -> str:
        return f"node {_first_line('node', '--version')}"

    def command(self, site: Site, scenario: Scenario) -> list[str]:
        words = (APPS / "node_server.js", site.port, site.root, site.cert, site.key, site.log)
        return ["node", *map(str, words)]


class H2o(Peer):
    """h2o, one thread."""

    name = "h2o"
    what = "h2o, one thread, with an access log"

    def missing(self) -> str | None:
        return None if shutil.which("h2o") else "apt install h2o"

    def version(self) -> str:
        return _first_line("h2o", "--version")

    def refuses(self, scenario: Scenario) -> str | None:
        return FILES_ONLY if scenario.computed else None

    def command(self, site: Site, scenario: Scenario) -> list[str]:
        user = f"user: {getpass.getuser()}" if os.getuid() == 0 else ""
        packed = "file.send-compressed: ON" if scenario.packed else ""
        settings = site.place / "h2o.yaml"
        settings.write_text(
            f"""{user}
num-threads: 1
max-connections: 8192
http2-idle-timeout: 120
tcp-fastopen: 0
pid-file: {site.place}/h2o.pid
access-log: {site.log}
{packed}
listen:
  host: 127.0.0.1
  port: {site.port}
  ssl:
    certificate-file: {site.cert}
    key-file: {site.key}
    ocsp-update-interval: 0
hosts:
  default:
    paths:
      "/":
        file.dir: {site.root}
"""
        )
        return ["h2o", "-c", str(settings)]


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        H2log(),
        Hypercorn(),
        HypercornUvloop(),
        Granian(),
        GranianStatic(),
        Starlette(),
        Uvicorn(),
        Nginx(),
        NginxTuned(),
        Node(),
        H2o(),
    )
}
