"""What `h2log status` shows: tables, on a terminal as wide as that."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from h2log.config.units import size_text

__all__ = ["print_status"]

_PIPE_WIDTH: Final = 10_000


def print_status(found: dict[str, Any]) -> None:
    """Print what a server has answered."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    total = found["total"]
    console.print(
        Text.assemble(
            (found["url"], "bold"),
            f"  up {_age(found['age'])}, {total['connections']} connections, "
            f"{total['active']} open requests, {total['rate']:.0f} requests/s, "
            f"{total['requests']} since the start of these workers",
        )
    )
    for table in (_workers(found), _requests(found), _logs(found)):
        if table.row_count:
            console.print()
            console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column not in ("path", "file"), overflow="fold")
    return table


def _workers(found: dict[str, Any]) -> Table:
    table = _table(
        "worker", "process", "state", "up", "connections", "open", "requests", "a second",
        "sent", "memory", "lines waiting", "dropped",
    )  # fmt: skip
    for worker in found["workers"]:
        heard = worker["heard"]
        silent = heard is not None and heard > 3
        state = f"silent {_age(heard)}" if silent else worker["state"]
        color = "red" if silent else "green" if state == "serving" else "yellow"
        table.add_row(
            str(worker["number"]), str(worker["pid"]), Text(state, color), _age(worker["age"]),
            str(worker["connections"]), str(worker["active"]), str(worker["requests"]),
            f"{worker['rate']:.0f}", size_text(worker["sent"]), size_text(worker["resident"]),
            size_text(worker["waiting"]), str(worker["dropped"]),
        )  # fmt: skip
    return table


def _requests(found: dict[str, Any]) -> Table:
    table = _table("open for", "worker", "client", "session", "request", "method", "path")
    for request in found["requests"]:
        table.add_row(
            _age(request["age"]), str(request["worker"]), request["client"], request["session"],
            request["id"], request["method"], Text(request["path"]),
        )  # fmt: skip
    return table


def _logs(found: dict[str, Any]) -> Table:
    table = _table("log", "written", "queued", "dropped", "skipped", "trouble")
    for log in found["owner"]["logs"]:
        trouble = Text(log["failing"] or "-", "red" if log["failing"] else "")
        table.add_row(
            Text(log["file"] or log["path"]), str(log["written"]), str(log["queued_lines"]),
            str(log["dropped"]), str(log["skipped"]), trouble,
        )  # fmt: skip
    return table


def _age(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"
