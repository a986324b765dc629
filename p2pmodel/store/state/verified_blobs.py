"""The journal of blobs with the right hash, so that a restart need not hash them again."""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

Fingerprint = tuple[int, int, int]
"""Size, mtime in ns and inode: a blob with the same values counts as unchanged."""


class VerifiedBlobs:
    """A journal of JSON lines, `{"etag", "size", "mtime_ns", "inode"}`, of which the last line of an etag counts.

    An append is cheap for thousands of files, several processes may append at once, and an incomplete line from a crash
    is skipped. The loss of the journal costs only hashing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, Fingerprint] = {}
        self._read = 0

    def holds(self, etag: str, blob: Path) -> bool:
        """Whether the hash of `blob`, as it is now, was found to be `etag`."""
        with self._lock:
            self._catch_up()
            return self._known.get(etag) == _fingerprint(blob)

    def add(self, blobs: Mapping[str, Path]) -> None:
        """Record that the hash of each of `blobs` is its etag."""
        found = {etag: _fingerprint(blob) for etag, blob in blobs.items()}
        with self._lock:
            self._catch_up()
            self._append({etag: now for etag, now in found.items() if now and self._known.get(etag) != now})

    def forget(self, etag: str) -> None:
        """Remove the record of `etag`: its blob is wrong or removed."""
        with self._lock:
            self._catch_up()
            if etag in self._known:
                self._append({etag: (-1, 0, 0)})

    def _append(self, found: Mapping[str, Fingerprint]) -> None:
        if not found:
            return
        lines = "".join(f"{_line(etag, fingerprint)}\n" for etag, fingerprint in found.items())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # The leading newline ends a line that a crash left incomplete.
            os.write(descriptor, f"\n{lines}".encode())
        finally:
            os.close(descriptor)

    def _catch_up(self) -> None:
        """Read the lines that this or another process has appended since."""
        try:
            with self._path.open("rb") as journal:
                if os.fstat(journal.fileno()).st_size < self._read:
                    self._known, self._read = {}, 0
                journal.seek(self._read)
                data = journal.read()
        except OSError:
            self._known, self._read = {}, 0
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            found = (int(entry["size"]), int(entry["mtime_ns"]), int(entry["inode"]))
            self._known[str(entry["etag"])] = found
        except (ValueError, TypeError, KeyError, RecursionError):
            return


def _line(etag: str, fingerprint: Fingerprint) -> str:
    size, mtime_ns, inode = fingerprint
    return json.dumps({"etag": etag, "size": size, "mtime_ns": mtime_ns, "inode": inode})


def _fingerprint(blob: Path) -> Fingerprint | None:
    try:
        status = blob.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
