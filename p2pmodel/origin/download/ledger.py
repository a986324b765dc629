"""Record of which mirror sent which bytes of a file, so that wrong ones can be traced. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Bytes `start` to `end` came from mirror `name`, in one response."""

    name: str
    start: int
    end: int


class Ledger:
    """The bytes that came in this run; bytes of an earlier run have no known mirror."""

    def __init__(self) -> None:
        self._entries: dict[int, list[LedgerEntry]] = {}

    def add(self, response: int, name: str, start: int, end: int) -> None:
        """`name` sent `start` to `end` in the response with the number `response`."""
        entries = self._entries.setdefault(response, [])
        if entries and (entries[-1].name, entries[-1].end) == (name, start):
            entries[-1] = LedgerEntry(name, entries[-1].start, end)
        else:
            entries.append(LedgerEntry(name, start, end))

    def names(self) -> list[str]:
        """The mirrors that sent bytes, those that sent least first."""
        amounts: dict[str, int] = {}
        for entry in self._all():
            amounts[entry.name] = amounts.get(entry.name, 0) + entry.end - entry.start
        return sorted(amounts, key=lambda name: amounts[name])

    def of(self, name: str) -> list[LedgerEntry]:
        """The stretches that `name` sent, longest first."""
        return sorted((e for e in self._all() if e.name == name), key=lambda e: e.start - e.end)

    def unattributed(self, size: int) -> list[tuple[int, int]]:
        """(offset, length) of the bytes of a complete file of `size` bytes that no mirror sent in this run."""
        gaps, position = [], 0
        for start, end in sorted((e.start, e.end) for e in self._all()):
            if start > position:
                gaps.append((position, start - position))
            position = max(position, end)
        return [*gaps, (position, size - position)] if position < size else gaps

    def forget(self, name: str) -> None:
        """Drop the entries of `name`: its bytes were discarded."""
        self._entries = {k: left for k, es in self._entries.items() if (left := [e for e in es if e.name != name])}

    def clear(self) -> None:
        """Drop all entries: all bytes were discarded."""
        self._entries.clear()

    def _all(self) -> Iterator[LedgerEntry]:
        return (entry for entries in self._entries.values() for entry in entries)
