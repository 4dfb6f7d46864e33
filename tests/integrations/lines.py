"""The lines of a log in the format `h2log-full`, as they come."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from h2log.access.lines import is_note
from h2log.access.parsed import Line
from h2log.access.readback import parse_line
from tests.support import eventually

__all__ = ["Lines"]


class Lines:
    """The log at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[Line]:
        """Return the whole lines so far; one that does not parse raises ValueError."""
        if not self.path.exists():
            return []
        # What is being written just now may end in the middle of a line.
        texts = self.path.read_text("ascii").rpartition("\n")[0].splitlines()
        return [parse_line("h2log-full", text) for text in texts if not is_note(text)]

    async def of(self, target: str, count: int = 1) -> list[Line]:
        """Wait for the lines of a target; there are `count`."""
        found: list[Line] = []

        def there() -> bool:
            found[:] = [line for line in self.all() if line.target == target]
            return len(found) >= count

        try:
            await eventually(there)
        except TimeoutError:
            pytest.fail(f"{len(found)} of {count} lines of {target}")
        assert len(found) == count, found
        return found

    async def one(self, target: str) -> Line:
        """Wait for the only line of a target."""
        return (await self.of(target))[0]

    async def that(self, request: str) -> Line:
        """Wait for the line of the request with that id."""
        found: list[Line] = []

        def there() -> bool:
            found[:] = [line for line in self.all() if line.request == request]
            return bool(found)

        await eventually(there)
        [line] = found
        return line

    def outcomes(self) -> Counter[str]:
        """How many ended how."""
        return Counter(line.outcome.value if line.outcome else "-" for line in self.all())
