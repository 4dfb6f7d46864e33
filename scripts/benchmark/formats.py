"""What a line costs: microseconds of CPU for each named format, on a typical request over HTTP/2.

use: .venv/bin/python scripts/benchmark/formats.py [lines]

`fresh` has its header fields as a new tuple each, as when nothing of a request repeats; `shared`
has them shared, as by requests of a connection that differ in nothing but their path.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).parents[2]))

from h2log.access.formats import NAMES, compile
from h2log.access.record import AccessRecord, Outcome, Session, TlsFacts

FIELDS = (
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-US,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://127.0.0.1:8443/"),
    (b"upgrade-insecure-requests", b"1"),
    (b"sec-fetch-dest", b"document"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-site", b"same-origin"),
    (b"priority", b"u=0, i"),
)
EXTRA = {
    "tokens": ":method :url :status :res[content-length] - :response-time[3] ms",
    "function": lambda record: f"{record.status} {record.id}",
}


@dataclass(frozen=True, slots=True)
class Facts:
    method: str
    path: str
    scheme: str
    authority: str
    fields: tuple[tuple[bytes, bytes], ...]


class Answer:
    headers = (("content-type", "text/html; charset=utf-8"), ("etag", '"6f1a-18c"'))

    def content_length(self) -> int:
        return 6213


def records(count: int, shared: bool) -> list[AccessRecord]:
    session = Session("01a1f7b868cb70a790821d3b31aa008f", "127.0.0.1", 54321, 1.8e9, print)
    session.protocol = session.alpn = "h2"
    session.tls = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "localhost", False)
    made = []
    for n in range(count):
        path = f"/article/{n:032x}/06-request.html"
        fields = FIELDS if shared else (*FIELDS[:1], *FIELDS[1:])
        record = AccessRecord(
            session,
            Facts("GET", path, "https", "127.0.0.1:8443", fields),
            f"{n:032x}",
            2 * n + 1,
            1.8e9 + n / 10_000,
            n / 10_000,
        )
        record.status = 200
        record.end = record.start + 0.007412
        record.response = Answer()  # type: ignore[assignment]
        record.sent, record.header_sent, record.header_received = 6213, 120, 40
        record.cache = "hit"
        record.sequence = n + 1
        record.outcome = Outcome.COMPLETE
        made.append(record)
    return made


def microseconds(line: Callable[[AccessRecord], str], batch: list[AccessRecord]) -> float:
    """Return the least of some runs: noise only ever adds."""
    best = float("inf")
    for _ in range(7):
        began = process_time()
        block = "".join([line(record) for record in batch])
        best = min(best, process_time() - began)
        assert block.count("\n") == len(batch)
    return best / len(batch) * 1e6


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    fresh, shared = records(count, False), records(count, True)
    print(f"{'format':12} {'fresh':>8} {'shared':>8}   µs a line")
    named = {name: compile(name) for name in NAMES}
    named["dev colored"] = named["dev"].colored
    for name, made in {
        **named,
        **{name: compile(source) for name, source in EXTRA.items()},
    }.items():
        print(f"{name:12} {microseconds(made, fresh):8.2f} {microseconds(made, shared):8.2f}")


if __name__ == "__main__":
    main()
