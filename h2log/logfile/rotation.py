"""What becomes of a log's files: when one ends, what it is called then, how long it is kept.

Pure: no files are touched here, time is an argument, and the names in the folder are too.

`path` is always the live log, as `tail -F`, `logrotate` and `h2log tail` expect; a file that has
ended is renamed, once, after the period that its lines are of: `access-2026-11-20.log`. With
`current="symlink"` it is winston-daily-rotate-file's way instead: the dated file is written to
directly, is never renamed, and `path` is a symbolic link to the one that is written to.

A name that was given before gets a counter before its suffix (`access-2026-11-20.1.log`, `.2` …),
or where the pattern says `{n}`; numbers grow with time and a file never changes its number, so a
reader or a compressor is not led from one file into another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import PurePath
from typing import Final, Literal, NamedTuple

from h2log.errors import UsageError
from h2log.logfile.schedule import Schedule, time_zone

__all__ = ["Keep", "Names", "Old", "Rotation", "parse_size"]

_SIZES: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_AGES: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 366 * 86_400}
SUFFIXES: Final = {"gzip": ".gz", "zstd": ".zst"}
"""What compressed files end in."""
_NUMBER: Final = "{n}"
# What each directive of strftime can stand for in a name; the others depend on the locale.
_DIRECTIVES: Final = {
    **dict.fromkeys("dmHIMSyUWVC", r"[0-9]{2}"),
    **dict.fromkeys("YG", r"[0-9]{4}"),
    **dict.fromkeys("uw", r"[0-9]"),
    "j": r"[0-9]{3}",
    "s": r"[0-9]+",
    "F": r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "%": "%",
}


def parse_size(size: str | int, key: str = "rotate.size") -> int:
    """Return a number of bytes, also of `64KB`, `5 MB`, `1G` (powers of 1024). UsageError."""
    if isinstance(size, int) and not isinstance(size, bool):
        if size > 0:
            return size
    elif isinstance(size, str):
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:i?B)?", size, re.IGNORECASE)
        if found and (count := int(float(found[1]) * _SIZES[found[2].upper()])):
            return count
    raise UsageError(f"{key}: expected a size such as 64KB, 5MB or 1GB, got {size!r}")


class Old(NamedTuple):
    """A file that has ended, as the folder shows it."""

    name: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of what has ended stays; None is no bound. The live file never counts."""

    count: int | None = None
    age: float | None = None
    """Seconds since the last line."""
    size: int | None = None
    """Bytes of all together, as they lie on the disk."""

    @classmethod
    def parse(cls, keep: str | int | Keep | None) -> Keep:
        """Return what `keep` says: `10` files, `"14d"`, `"5GB"`, or `"100, 14d, 5GB"`: all hold.

        Ages take s, m, h, d, w, y in lower case; sizes end in B, or in K, M, G, T. UsageError.
        """
        if keep is None:
            return cls()
        if isinstance(keep, Keep):
            return keep
        count: int | None = None
        age: float | None = None
        size: int | None = None
        for part in str(keep).split(","):
            text = part.strip()
            if re.fullmatch(r"[0-9]{1,9}", text):
                count = int(text)
            elif found := re.fullmatch(r"([0-9]{1,9})([smhdwy])", text):
                age = float(int(found[1]) * _AGES[found[2]])
            elif re.fullmatch(r"[0-9.]+ ?(?:[KMGT](?:i?B)?|B)", text):
                size = parse_size(text, "rotate.keep")
            else:
                raise UsageError(
                    "rotate.keep: expected a number of files, an age such as 14d or a size such "
                    f"as 5GB, got {keep!r}"
                )
        return cls(count, age, size)

    def __bool__(self) -> bool:
        return (self.count, self.age, self.size) != (None, None, None)

    def surplus(self, files: Iterable[Old], now: float) -> list[str]:
        """Return the names of those `files` that are to go, oldest first."""
        newest_first = sorted(files, key=lambda old: (old.modified, _natural(old.name)))[::-1]
        gone: list[str] = []
        total = 0
        kept = 0
        for old in newest_first:
            total += old.size
            if (
                (self.count is not None and kept >= self.count)
                or (self.age is not None and now - old.modified > self.age)
                or (self.size is not None and total > self.size)
            ):
                gone.append(old.name)
            else:
                kept += 1
        return gone[::-1]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them: 9 before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


class Names:
    """The names that a pattern gives and recognises, beside a log called `base`."""

    def __init__(self, pattern: str, base: str, zone: tzinfo | None = None) -> None:
        if not pattern or "/" in pattern or "\0" in pattern or pattern in (base, ".", ".."):
            raise UsageError(
                "rotate.name: expected the name of a file other than the log's own, without a "
                f"folder, such as access-%Y-%m-%d.log, got {pattern!r}"
            )
        suffix = PurePath(base).suffix
        if _NUMBER in pattern:
            self._plain, self._numbered = "", pattern
        elif suffix and pattern.endswith(suffix):
            self._plain = pattern
            self._numbered = f"{pattern.removesuffix(suffix)}.{_NUMBER}{suffix}"
        else:
            self._plain, self._numbered = pattern, f"{pattern}.{_NUMBER}"
        self._zone = zone
        self._expressions = [
            re.compile(_expression(text) + r"(\.gz|\.zst)?", re.DOTALL)
            for text in (self._plain, self._numbered)
            if text
        ]

    def name(self, when: float, number: int) -> str:
        """Return the name for the period of `when`; number 0 is the one without a counter."""
        pattern = self._numbered if number or not self._plain else self._plain
        return str(number).join(self._pieces(pattern, when))

    def _pieces(self, pattern: str, when: float) -> list[str]:
        """Return what stands before, between and after the counters."""
        local = datetime.fromtimestamp(when, self._zone)
        return [local.strftime(piece) if piece else "" for piece in pattern.split(_NUMBER)]

    def first_free(self, when: float, taken: Iterable[str]) -> int:
        """Return the number after the highest that files of that period in `taken` have."""
        highest = -1 if self._plain else 0
        # A counter that stands twice is the same in both places.
        first, *others = [re.escape(piece) for piece in self._pieces(self._numbered, when)]
        rest = r"\1".join(others)
        shape = re.compile(rf"{first}([0-9]{{1,9}}){rest}(?:\.gz|\.zst)?", re.DOTALL)
        plain = self.name(when, 0) if self._plain else None
        for name in taken:
            if plain is not None and name.removesuffix(".gz").removesuffix(".zst") == plain:
                highest = max(highest, 0)
            elif found := shape.fullmatch(name):
                highest = max(highest, int(found[1]))
        return highest + 1

    def match(self, name: str) -> Literal["", "plain", "compressed"]:
        """Return whether `name` is of an ended file, and of which kind; nothing if it is not."""
        for expression in self._expressions:
            if found := expression.fullmatch(name):
                return "compressed" if found[found.re.groups] else "plain"
        return ""


def _expression(pattern: str) -> str:
    """Return a regular expression of the names that a pattern can give."""
    parts: list[str] = []
    for piece in re.split(r"(%.?|\{n\})", pattern, flags=re.DOTALL):
        if piece == _NUMBER:
            parts.append("[0-9]{1,9}")
        elif piece.startswith("%"):
            if piece[1:] not in _DIRECTIVES:
                raise UsageError(
                    f"rotate.name: expected directives of %{', %'.join(_DIRECTIVES)}, "
                    f"got {piece!r} in {pattern!r}"
                )
            parts.append(_DIRECTIVES[piece[1:]])
        else:
            parts.append(re.escape(piece))
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The rules for one log; `Rotation.of` makes them of what a configuration says."""

    schedule: Schedule | None = None
    size: int | None = None
    """The most bytes of a file; only a single line longer than this makes a longer one."""
    name: str | None = None
    keep: Keep = Keep()
    compress: Literal["", "gzip", "zstd"] = ""
    current: Literal["file", "symlink"] = "file"
    zone: tzinfo | None = None
    settle: float = 2.0
    """Seconds before an ended file is compressed: its followers look a few times a second."""

    @classmethod
    def of(
        cls,
        *,
        every: str | float | None = None,
        size: str | int | None = None,
        name: str | None = None,
        keep: str | int | Keep | None = None,
        compress: str | bool | None = None,
        current: str = "file",
        timezone: str = "local",
        settle: float = 2.0,
    ) -> Rotation:
        """Return the validated rules. Raises UsageError naming the key, `rotate.…`."""
        zone = time_zone(timezone)
        if every is None and size is None:
            raise UsageError("rotate: expected every, size or both; nothing says when")
        method: Literal["", "gzip", "zstd"]
        if compress is None or compress is False or compress == "":
            method = ""
        elif compress is True or compress == "gzip":
            method = "gzip"
        elif compress == "zstd":
            method = "zstd"
        else:
            raise UsageError(f"rotate.compress: expected gzip or zstd, got {compress!r}")
        if current not in ("file", "symlink"):
            raise UsageError(f"rotate.current: expected file or symlink, got {current!r}")
        if name is not None:
            Names(name, "")  # for its errors
        return cls(
            schedule=None if every is None else Schedule.parse(every, zone),
            size=None if size is None else parse_size(size),
            name=name,
            keep=Keep.parse(keep),
            compress=method,
            current="symlink" if current == "symlink" else "file",
            zone=zone,
            settle=settle,
        )

    def names(self, base: str) -> Names:
        """Return the names of the ended files of a log called `base`.

        Without a pattern: `access-%Y-%m-%d.log` as fine as the schedule, `access.log.{n}` by size.
        """
        pattern = self.name
        if pattern is None:
            path = PurePath(base.replace("%", "%%"))
            if self.schedule is None:
                pattern = f"{path}.{_NUMBER}"
            else:
                pattern = f"{path.stem}-{self.schedule.pattern}{path.suffix}"
        return Names(pattern, base, self.zone)

    def period(self, begun: float) -> float:
        """Return the time that names a file begun at `begun`: its period's, or its own."""
        return begun if self.schedule is None else self.schedule.start(begun)

    def ends(self, begun: float) -> float:
        """Return when a file that was begun at `begun` ends, by time; infinity if it does not."""
        return float("inf") if self.schedule is None else self.schedule.next(begun)
