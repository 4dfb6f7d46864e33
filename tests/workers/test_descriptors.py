"""Too few descriptors for all clients: the connected are served, the others when there is room."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from pathlib import Path

from h2log.server.certificates import Certificates
from tests.support import Process, poll
from tests.workers.fleet import Clients, access, descriptors, fleet, workers

LIMIT = 128
CLIENTS = 600


def processor_seconds(pids: list[int]) -> float:
    """Return the processor time that processes have used."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def full(server: Process) -> bool:
    """Say whether every worker has as many descriptors as it may."""
    return all(descriptors(pid) >= LIMIT - 1 for pid in workers(server))


def test_more_clients_than_descriptors(certs: Certificates, tmp_path: Path) -> None:
    """No worker spins meanwhile; when clients leave, the ones that waited are answered."""
    with fleet(tmp_path, certs) as server, contextlib.ExitStack() as stack:
        for pid in workers(server):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        for _ in range(CLIENTS):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        poll(lambda: full(server))
        server.stderr.wait(lambda line: "cannot accept: Too many open files" in line)
        pids = workers(server)
        before, since = processor_seconds(pids), time.monotonic()
        with Clients(server, count=1) as clients:
            time.sleep(1)  # what is measured is a share of time
            spent = processor_seconds(pids) - before
            assert spent < 0.2 * (time.monotonic() - since)
            stack.close()
            clients.more()
        assert workers(server) == pids
        assert server.stop() == 0
    assert set(clients.ids) <= {line["h2log.request"] for line in access(tmp_path)}
