"""The record beside a partial file: which of its bytes were written, and which of them certainly survive what.

A record may carry the root of a Merkle tree: then its ranges passed the checks of that tree. Any other writer drops it.
"""

import json
from pathlib import Path
from typing import Any

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import boot_id, read_json, write_atomic
from p2pmodel.store.files.range_set import RangeSet

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
    """Remove the record of the partial file `path`, which is published or removed."""
    record_path(path).unlink(missing_ok=True)


def record_path(path: Path) -> Path:
    """Where the record of the partial file `path` is."""
    return path.with_name(f"{path.name}{SUFFIX}")


def _ranges(plain: Any) -> RangeSet:
    try:
        ranges = RangeSet((int(start), int(end)) for start, end in plain)
    except (TypeError, ValueError):
        return RangeSet()
    return ranges if ranges.start() >= 0 else RangeSet()
