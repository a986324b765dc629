"""Sets of byte positions as disjoint half-open ranges, and the record of them beside a partial file: which of its bytes
were written, and which of them certainly survive what.

A record may carry the root of a Merkle tree: then its ranges passed the checks of that tree. Any other writer drops it.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import boot_id, read_json, write_atomic
from p2pmodel.store.files.leaf_record import leaves_path


class RangeSet:
    """Positions in ranges [start, end); adjacent ranges are merged."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def copy(self) -> "RangeSet":
        """Another set of the same positions."""
        return RangeSet(self)

    def add(self, start: int, end: int) -> None:
        """Add [start, end)."""
        if start >= end:
            return
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Remove [start, end)."""
        if start >= end:
            return
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if first >= last:
            return
        left = (self._starts[first], start)
        right = (end, self._ends[last - 1])
        rest = [r for r in (left, right) if r[0] < r[1]]
        self._starts[first:last] = [s for s, _ in rest]
        self._ends[first:last] = [e for _, e in rest]

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of [start, end) that are not in the set."""
        found = []
        index = bisect_right(self._ends, start)
        while start < end:
            following = self._starts[index] if index < len(self._starts) else end
            if start < min(following, end):
                found.append((start, min(following, end)))
            start = self._ends[index] if index < len(self._ends) else end
            index += 1
        return found

    def prefix(self) -> int:
        """The number of positions from 0 on without a gap."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def start(self) -> int:
        """The first position; 0 for the empty set."""
        return self._starts[0] if self._starts else 0

    def end(self) -> int:
        """One past the last position; 0 for the empty set."""
        return self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return sum(self._ends) - sum(self._starts)


SUFFIX = ".ranges"


def write_record(
    path: Path, file: ManifestFile, done: RangeSet, synced: RangeSet, *, root: str = "", durable: bool = False
) -> None:
    """Record that of the partial file at `path` the ranges `done` were written, and `synced` reached the disk.

    `root`: the Merkle root, in hex, of the tree that `done` was compared with.
    """
    record = {
        "etag": file.etag,
        "boot": boot_id(),
        "done": list(done),
        "synced": list(synced),
        **({"root": root} if root else {}),
    }
    write_atomic(record_path(path), json.dumps(record).encode(), via=path.parent, durable=durable)


def read_record(path: Path, file: ManifestFile, present: int, *, root: str = "") -> RangeSet:
    """The ranges of `file` that an earlier run wrote into `path` and that certainly exist, as far as `present` bytes
    can contain them. With `root` only those that passed the checks of that tree."""
    record = read_json(record_path(path))
    if not isinstance(record, dict) or record.get("etag") != file.etag or (root and record.get("root") != root):
        return RangeSet()
    ranges = _ranges(record.get("done" if record.get("boot") == boot_id() else "synced"))
    return ranges if ranges.end() <= min(present, file.size) else RangeSet()


def read_synced(path: Path, file: ManifestFile) -> RangeSet:
    """The ranges that the record at `path` says have reached the disk."""
    record = read_json(record_path(path))
    if not isinstance(record, dict) or record.get("etag") != file.etag:
        return RangeSet()
    return _ranges(record.get("synced"))


def record_stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever the record of the partial file at `path` is written, or the file is replaced; None without
    a record or a file."""
    try:
        record, file = record_path(path).lstat(), path.lstat()
    except OSError:
        return None
    return record.st_ino, record.st_mtime_ns, file.st_ino


@translated()
def remove_record(path: Path) -> None:
    """Remove the records of the partial file `path`, which is published or removed."""
    record_path(path).unlink(missing_ok=True)
    leaves_path(path).unlink(missing_ok=True)


def record_path(path: Path) -> Path:
    """Where the record of the partial file `path` is."""
    return path.with_name(f"{path.name}{SUFFIX}")


def _ranges(plain: Any) -> RangeSet:
    try:
        ranges = RangeSet((int(start), int(end)) for start, end in plain)
    except (TypeError, ValueError):
        return RangeSet()
    return ranges if ranges.start() >= 0 else RangeSet()
