"""The target for Atheris, which is led by coverage: a process of its own, since it never returns.

use: python guided.py TALLY COUNT SECONDS SEED
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from time import monotonic

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

with atheris.instrument_imports(include=["h2log.http2"]):
    import h2log.http2.connection

import case as cases  # noqa: E402 - what is instrumented must be imported first
from mutate import Mutator  # noqa: E402
from workers import Plan, Worker  # noqa: E402

assert h2log.http2.connection is not None


def main() -> None:
    """Fuzz until the count or the time is through."""
    tally, count, seconds, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])

    def tell(told: object) -> None:
        part = tally.with_suffix(".part")
        part.write_bytes(pickle.dumps(told))
        part.replace(tally)

    until = monotonic() + (seconds or 1e9)
    worker = Worker(Plan("atheris", seed, seed, count, until), tell)

    def target(data: bytes) -> None:
        worker.run("atheris", cases.decode(data))
        inputs = worker.tally.inputs["atheris"]
        if inputs >= count or (inputs % 64 == 0 and not worker.left()):
            worker.tally.done = True
            tell(worker.tally)
            os._exit(0)  # libFuzzer leaves in the same way, but tells nobody

    corpus = tally.with_suffix(".corpus")
    corpus.mkdir()
    for number, case in enumerate(Mutator(worker.random).seeds()):
        Path(corpus, str(number)).write_bytes(cases.encode(case))
    options = [f"-seed={seed}", "-max_len=8192", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
