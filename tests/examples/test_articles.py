"""The sample site as an application."""

from __future__ import annotations

from pathlib import Path

import httpx

from h2log.cli.serve import SAMPLE_SITE
from h2log.examples.articles import SITE
from h2log.server.certificates import Certificates
from tests.support import Process, client_context


def test_it_is_what_serve_serves(certs: Certificates, tmp_path: Path) -> None:
    """`run` has the same files at the same addresses as `serve` without a folder, and no others."""
    assert SITE == SAMPLE_SITE
    files = sorted(path for path in SITE.rglob("*") if path.is_file())
    assert len(files) == 14
    with (
        Process("run", "h2log.examples.articles:app", certs=certs, log=tmp_path / "run") as run,
        Process("serve", certs=certs, log=tmp_path / "serve") as serve,
        httpx.Client(verify=client_context(certs), http1=False, http2=True) as client,
    ):
        for server in (run, serve):
            for file in files:
                answer = client.get(f"{server.url}/{file.relative_to(SITE)}")
                assert (answer.status_code, answer.content) == (200, file.read_bytes())
            assert client.get(server.url).content == (SITE / "index.html").read_bytes()
            for path in ("__init__.py", "../__init__.py", "%2e%2e/__init__.py", "site/index.html"):
                assert client.get(f"{server.url}/{path}").status_code == 404
