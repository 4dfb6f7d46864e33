"""What is in a folder, as a page or as JSON.

Names that begin with a dot are left out, and so is what would not be served: links to the outside
or to what is hidden, pipes, devices. Names are bytes to the disk and text to a reader: addresses
are coded from the bytes, what is shown is escaped, and what is no UTF-8 is shown as U+FFFD.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from h2log.app.files.disk import Folder, Root

__all__ = ["MOST_LISTED", "POLICY", "Item", "Order", "as_json", "as_page", "order_of", "scan"]

MOST_LISTED: Final = 10_000
"""Names of a folder that are listed: more would be no page to read, and much to make each time."""

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{max-width:52rem;margin:2.5rem auto;padding:0 1rem;font:1rem/1.5 system-ui,sans-serif}"
    "h1{font-size:1.15rem;font-weight:600;overflow-wrap:anywhere}"
    "table{width:100%;border-collapse:collapse}"
    "th,td{padding:.35rem .5rem;text-align:left;border-bottom:1px solid #8883}"
    "th:nth-child(2),td:nth-child(2){text-align:right}"
    "td+td{white-space:nowrap;color:#777;font-variant-numeric:tabular-nums}"
    "td:first-child{overflow-wrap:anywhere}"
    "tr:hover td{background:#8881}a{color:#2563eb;text-decoration:none}a:hover{"
    "text-decoration:underline}th a{color:inherit}"
    "@media(prefers-color-scheme:dark){a{color:#7aa7ff}}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: its own style and nothing else, whatever a name has in it,
and nobody's frame around it (for which `default-src` does not stand)."""

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class Item(NamedTuple):
    """One name of a folder; `size` in bytes, None of a folder; `modified` in epoch seconds."""

    name: str
    folder: bool
    size: int | None
    modified: float

    @property
    def shown(self) -> str:
        """The name as text that can be shown."""
        return _text(self.name)

    @property
    def href(self) -> str:
        """The address, relative to the folder's."""
        # "./" so that a name with a colon is no scheme.
        return "./" + quote(os.fsencode(self.name), safe="") + ("/" if self.folder else "")


class Order(NamedTuple):
    """How a listing is sorted; folders come first either way."""

    key: Literal["name", "size", "time"] = "name"
    down: bool = False


_KEYS: Final[dict[str, Callable[[Item], Any]]] = {
    "name": lambda item: (item.shown.casefold(), item.name),
    "size": lambda item: (item.size or 0, item.shown.casefold(), item.name),
    "time": lambda item: (item.modified, item.shown.casefold(), item.name),
}


def order_of(sort: str | None, order: str | None) -> Order:
    """Return the order that a query's `sort` and `order` mean; what is none of it is ignored."""
    down = (order or "").lower() == "desc"
    match sort:
        case "size":
            return Order("size", down)
        case "time":
            return Order("time", down)
    return Order("name", down)


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def scan(root: Root, folder: Folder, order: Order) -> tuple[list[Item], bool]:
    """Return what of a folder is served, sorted, and whether that is not all. Raises OSError."""
    items: list[Item] = []
    more = False
    with root.scan(folder) as found:
        for entry in found:
            if entry.name.startswith(".") or "\\" in entry.name:
                continue
            if len(items) == MOST_LISTED:
                more = True
                break
            try:
                if entry.is_symlink() and (
                    root.resolve(os.path.join(folder.path, entry.name)) is None
                ):
                    continue
                status = entry.stat()
            except OSError:  # gone meanwhile, or a link in a circle
                continue
            if stat.S_ISDIR(status.st_mode):
                items.append(Item(entry.name, True, None, status.st_mtime))
            elif stat.S_ISREG(status.st_mode):
                items.append(Item(entry.name, False, status.st_size, status.st_mtime))
    items.sort(key=_KEYS[order.key], reverse=order.down)
    items.sort(key=lambda item: not item.folder)
    return items, more


def _when(modified: float) -> str:
    """Return a time as `2026-11-20T13:31:59Z`, nothing for one beyond all calendars."""
    try:
        return datetime.fromtimestamp(int(modified), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return ""


def as_json(items: list[Item]) -> bytes:
    """Return a listing as a JSON array of objects: name, href, type, size and modified."""
    return msgspec.json.encode(
        [
            {
                "name": item.shown,
                "href": item.href,
                "type": "folder" if item.folder else "file",
                "size": item.size,
                "modified": _when(item.modified) or None,
            }
            for item in items
        ]
    )


def _size(size: int | None) -> str:
    """Return a size as a person reads it: three digits and a unit."""
    if size is None:
        return ""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return (
        f"{value:.0f} {_UNITS[unit]}"
        if unit == 0 or value >= 9.95
        else f"{value:.1f} {_UNITS[unit]}"
    )


def _headings(order: Order) -> str:
    """Return the heads of the columns: each a link that sorts by it, or turns its order round."""
    cells = []
    for key, label in (("name", "Name"), ("size", "Size"), ("time", "Modified (UTC)")):
        mine = order.key == key
        turned = "desc" if mine and not order.down else "asc"
        state = f" aria-sort={'descending' if order.down else 'ascending'}" if mine else ""
        mark = (" ↓" if order.down else " ↑") if mine else ""
        link = f'<a href="?sort={key}&amp;order={turned}">{label}</a>'
        cells.append(f"<th scope=col{state}>{link}{mark}</th>")
    return "".join(cells)


def as_page(
    prefix: str, names: tuple[str, ...], items: list[Item], more: bool, order: Order
) -> bytes:
    """Return a listing as a page, below the names that lead to it; `more`: it is not all."""
    path = html.escape(prefix + "".join(f"{_text(name)}/" for name in names))
    rows = []
    if names:
        rows.append('<tr><td><a href="../">../</a></td><td></td><td></td></tr>')
    for item in items:
        when = _when(item.modified)
        name = html.escape(item.shown) + ("/" if item.folder else "")
        time = f'<time datetime="{when}">{when[:10]} {when[11:16]}</time>' if when else ""
        rows.append(
            f'<tr><td><a href="{html.escape(item.href)}">{name}</a></td>'
            f"<td>{_size(item.size)}</td><td>{time}</td></tr>"
        )
    rest = f"<p>Only {MOST_LISTED:,} names are listed.</p>\n" if more else ""
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<title>{path}</title>\n"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style></head>\n"
        f"<body><h1>{path}</h1>\n<table><thead><tr>{_headings(order)}</tr></thead><tbody>\n"
        + "\n".join(rows)
        + f"\n</tbody></table>\n{rest}</body></html>\n"
    ).encode()
