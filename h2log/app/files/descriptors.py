"""Large files that are asked for again and again stay open between requests.

Finding a file again, walking down to it without following a link, costs as much as sending 64 KiB
of it. All requests for a file have one descriptor together: however many it is sent to, it takes
one of those that the process may have.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from h2log.app.files.disk import Opened
from h2log.app.files.entry import Entry

__all__ = ["OpenFiles"]

_MOST: Final = 64
"""Files of a folder that stay open (nginx's open_file_cache has a bound and none by default)."""


class OpenFiles:
    """The open files of a folder, by their entries; one that was not used lately is closed.

    What is open may have been replaced on the disk: who asks has looked that it was not.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[Entry, Opened] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def keep(self, entry: Entry, opened: Opened) -> None:
        """Keep the open file of `entry`, which the caller goes on to use."""
        if entry in self._files:
            return
        own = opened.again()
        if own is None:
            return
        own.asked = True
        self._files[entry] = own
        if len(self._files) > _MOST:
            self.drop(next(iter(self._files)))

    def open(self, entry: Entry) -> Opened | None:
        """Return the open file of `entry`, None when there is none; who uses it takes a share."""
        kept = self._files.get(entry)
        if kept is not None:
            self._files.move_to_end(entry)
            kept.asked = True
        return kept

    def drop(self, entry: Entry) -> None:
        """Close the file of an entry, if it is open."""
        opened = self._files.pop(entry, None)
        if opened is not None:
            opened.close()

    def rest(self) -> None:
        """Close what was not used since the last call: a file that was deleted takes room."""
        for entry, opened in list(self._files.items()):
            if not opened.asked:
                self.drop(entry)
            opened.asked = False

    def close(self) -> None:
        """Close all."""
        for entry in list(self._files):
            self.drop(entry)
