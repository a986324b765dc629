"""The journal of hashed blobs: which had the right hash, so that a restart need not hash them again, and which are
damaged, so that no server sends them."""

import json
import os
import threading
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from p2pmodel.core.plain_json import parse_json
from p2pmodel.store.private_folder import PrivateFolder

Fingerprint = tuple[int, int, int, int]
"""Size, mtime in ns, inode, and ctime in ns. A forger in a shared cache may choose all but the last."""
_NONE: Fingerprint = (-1, 0, 0, 0)

JOURNAL = "verified.jsonl"


class BlobState(Enum):
    """What is known about a blob as it is now. Only the first two may be served."""

    VERIFIED = "verified"
    UNKNOWN = "unknown"
    """No record: another program wrote it. Or only the ctime differs, by a change of the mode or by a forger."""
    CHANGED = "changed"
    """Not the file that was hashed: its size, mtime or inode differ."""
    DAMAGED = "damaged"
    """Its content failed a check."""
    MISSING = "missing"

    @property
    def usable(self) -> bool:
        """Whether it may be served and counts as the content of the snapshot."""
        return self in (BlobState.VERIFIED, BlobState.UNKNOWN)


class VerifiedBlobs:
    """A journal of JSON lines, `{"etag", "size", "mtime_ns", "inode", "ctime_ns"}`, of which the last line of an etag
    counts. The line of a damaged blob also has `"damaged": true`. It lies in the private folder, where no other user
    can add lines.

    An append is cheap for thousands of files, several processes may append at once, and an incomplete line from a crash
    is skipped. The loss of the journal costs only hashing.
    """

    def __init__(self, private: PrivateFolder) -> None:
        self._private = private
        self._lock = threading.Lock()
        self._known: dict[str, Fingerprint] = {}
        self._damaged: set[str] = set()
        self._read = 0

    def holds(self, etag: str, blob: Path) -> bool:
        """Whether the hash of `blob`, as it is now, was found to be `etag`."""
        return self.states({etag: fingerprint(blob)})[etag] is BlobState.VERIFIED

    def states(self, found: Mapping[str, Fingerprint | None]) -> dict[str, BlobState]:
        """The state of each blob by etag; `found` has their present fingerprints, None for a missing one."""
        with self._lock:
            self._catch_up()
            return {etag: self._state(etag, now) for etag, now in found.items()}

    def add(self, found: Mapping[str, Fingerprint]) -> None:
        """Record that the blobs with these fingerprints have the hash that is their etag."""
        with self._lock:
            self._catch_up()
            self._append({etag: now for etag, now in found.items() if not self._is_recorded(etag, now)})

    def add_damaged(self, found: Mapping[str, Fingerprint]) -> None:
        """Record that the blobs with these fingerprints are damaged."""
        with self._lock:
            self._catch_up()
            fresh = {etag: now for etag, now in found.items() if not self._is_recorded(etag, now, damaged=True)}
            self._append(fresh, damaged=True)

    def forget(self, etag: str) -> None:
        """Remove the record of `etag`: its blob was removed."""
        with self._lock:
            self._catch_up()
            if self._known.get(etag, _NONE) != _NONE:
                self._append({etag: _NONE})

    def _state(self, etag: str, now: Fingerprint | None) -> BlobState:
        recorded = self._known.get(etag, _NONE)
        if now is None:
            return BlobState.MISSING
        if recorded == _NONE:
            return BlobState.UNKNOWN
        if recorded[:3] != now[:3]:
            return BlobState.CHANGED
        if etag in self._damaged:
            return BlobState.DAMAGED
        return BlobState.VERIFIED if recorded == now else BlobState.UNKNOWN

    def _is_recorded(self, etag: str, now: Fingerprint, *, damaged: bool = False) -> bool:
        return self._known.get(etag) == now and (etag in self._damaged) == damaged

    def _append(self, found: Mapping[str, Fingerprint], *, damaged: bool = False) -> None:
        if not found:
            return
        lines = "".join(f"{_line(etag, now, damaged=damaged)}\n" for etag, now in found.items())
        descriptor = os.open(self._private.made / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # The leading newline ends a line that a crash left incomplete.
            os.write(descriptor, f"\n{lines}".encode())
        finally:
            os.close(descriptor)

    def _catch_up(self) -> None:
        """Read the lines that this or another process has appended since."""
        try:
            with (self._private.existing / JOURNAL).open("rb") as journal:
                if os.fstat(journal.fileno()).st_size < self._read:
                    self._known, self._damaged, self._read = {}, set(), 0
                journal.seek(self._read)
                data = journal.read()
        except OSError:
            self._known, self._damaged, self._read = {}, set(), 0
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = parse_json(line)
            found = (int(entry["size"]), int(entry["mtime_ns"]), int(entry["inode"]), int(entry["ctime_ns"]))
            etag = str(entry["etag"])
        except (ValueError, TypeError, KeyError):
            return
        self._known[etag] = found
        (self._damaged.add if entry.get("damaged") is True else self._damaged.discard)(etag)


def _line(etag: str, found: Fingerprint, *, damaged: bool) -> str:
    size, mtime_ns, inode, ctime_ns = found
    plain: dict[str, object] = {
        "etag": etag,
        "size": size,
        "mtime_ns": mtime_ns,
        "inode": inode,
        "ctime_ns": ctime_ns,
    }
    return json.dumps(plain | ({"damaged": True} if damaged else {}))


def fingerprint(blob: Path) -> Fingerprint | None:
    """The fingerprint of `blob` now; None if it cannot be read."""
    try:
        return fingerprint_of(blob.lstat())
    except OSError:
        return None


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """The fingerprint of the file with this status."""
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns
