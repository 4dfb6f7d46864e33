"""Pages that load anew when a file changes: the script that they get, and what it listens to.

While a folder is watched, its pages have a script that opens the event stream `CHANGES` below the
folder's prefix. Who watches the disk sends an event there for each change (`server/watch.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

__all__ = ["CHANGES", "Watched"]

CHANGES: Final = ".h2log/changes"
"""Where the event stream is, behind the prefix. A name with a dot is never a file's."""

_SCRIPT: Final = (
    "<script>(()=>{"
    "const source=new EventSource(%s);let lost=false;"
    # A server that comes back may have other files: the page cannot know, and loads anew.
    "source.onopen=()=>{if(lost)location.reload()};"
    "source.onerror=()=>{lost=true};"
    "source.addEventListener('change',event=>{"
    "const paths=event.data.split('\\n');"
    "const styles=[...document.querySelectorAll('link[rel~=stylesheet]')];"
    # Styles alone can be exchanged under the page, which stays where it was scrolled to.
    "if(styles.length&&paths.every(path=>path.endsWith('.css')))"
    "for(const link of styles){const url=new URL(link.href);"
    "url.searchParams.set('h2log',Date.now());link.href=url}"
    "else location.reload()})})()</script>"
)


class Watched:
    """Puts the script into a page, after what else is done to make it.

    `prefix` is the part of the URL path that stands for the folder.
    """

    def __init__(self, prefix: str, before: Callable[[bytes], bytes] | None) -> None:
        self._before = before
        # In a script, "</" would end it.
        address = json.dumps(prefix + CHANGES).replace("</", "<\\/")
        self._script = (_SCRIPT % address).encode()

    def __call__(self, content: bytes) -> bytes:
        """Return the page with the script: at the end of its body, or of itself."""
        page = content if self._before is None else self._before(content)
        at = page.lower().rfind(b"</body")
        return page + self._script if at < 0 else page[:at] + self._script + page[at:]
