"""What finding a route costs: nanoseconds of CPU by how many routes there are.

use: .venv/bin/python scripts/benchmark/routes.py [look-ups]

`plain` is of a path without values, found by the application as a request for it is; `value` of a
path with a number at its end; `deep` of one with a number and a text after it; `missing` of a path
that is like them and is no route's. `register` is what a route costs once, when the application
gets ready. Paths are asked for in turn, so that no look-up has the last one's still in the CPU's
cache where there are many.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).parents[2]))

from h2log import App, Request, Response
from h2log.app.patterns import CONVERTERS, parse_pattern
from h2log.app.router import Router, Target

COUNTS = (1, 30, 300, 3_000)
KINDS = {"plain": "", "value": "/{id:int}", "deep": "/{id:int}/parts/{part}"}
ASKED = {"plain": "", "value": "/1042", "deep": "/1042/parts/left-wing"}


def answer(request: Request) -> Response:
    """Answer, if it were asked."""
    return Response(b"")


def router(count: int, tail: str) -> Router:
    """Return a router with `count` routes that end with `tail`."""
    made = Router()
    for number in range(count):
        pattern = parse_pattern(f"/api/resource-{number}{tail}", CONVERTERS)
        made.add(pattern, ("GET",), Target(answer, pattern.text, pattern.names, ""))
    return made


def nanoseconds(look_up: Callable[[str], object], paths: Sequence[str], count: int) -> float:
    """Return the least of some runs: noise only ever adds."""
    asked = [paths[number % len(paths)] for number in range(count)]
    best = empty = float("inf")
    for _ in range(7):
        began = process_time()
        for _path in asked:
            pass
        ended = process_time()
        for path in asked:
            look_up(path)
        best = min(best, process_time() - ended)
        empty = min(empty, ended - began)
    return (best - empty) / count * 1e9


def preparing(count: int) -> float:
    """Return the nanoseconds of a route when an application gets ready, the least of some runs."""
    app = App()
    for number in range(count):
        app.get(f"/api/resource-{number}/{{id:int}}")(answer)
    best = float("inf")
    for _ in range(3):
        began = process_time()
        app.prepare()
        best = min(best, process_time() - began)
    return best / count * 1e9


def row(count: int, look_ups: int) -> dict[str, float]:
    """Measure routers with `count` routes."""
    found: dict[str, float] = {}
    for kind, tail in KINDS.items():
        made = router(count, tail)
        paths = [f"/api/resource-{number}{ASKED[kind]}" for number in range(count)]
        find = finder(made) if tail else plain_finder(made)
        assert all(find(path) is not None for path in paths)
        found[kind] = nanoseconds(find, paths, look_ups)
        if kind == "value":
            missing = [f"/api/resource-{number}/wing" for number in range(count)]
            assert all(find(path) is None for path in missing)
            found["missing"] = nanoseconds(find, missing, look_ups)
    found["register"] = preparing(count)
    return found


def plain_finder(made: Router) -> Callable[[str], object]:
    """Return the look-up that an application makes before any other."""
    fixed = made.fixed

    def find(path: str) -> object:
        methods = fixed.get(path)
        return None if methods is None else methods.get("GET")

    return find


def finder(made: Router) -> Callable[[str], object]:
    """Return the look-up of what is not found so."""
    search = made.find
    return lambda path: search(path, "GET")


def main() -> None:
    look_ups = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    gc.disable()  # thousands of routes are much to look through, and are no part of a look-up
    columns = (*KINDS, "missing", "register")
    print(f"{'routes':>6}", *(f"{name:>9}" for name in columns), "  ns")
    for count in COUNTS:
        found = row(count, look_ups)
        print(f"{count:6,}", *(f"{found[name]:9.0f}" for name in columns))


if __name__ == "__main__":
    main()
