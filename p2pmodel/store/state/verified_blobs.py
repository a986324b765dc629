"""The journal of hashed blobs: which had the right hash, so that a restart need not hash them again, and which are
damaged, so that no server sends them. Other marks on blobs say when a fact about content was last true.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import translated
from p2pmodel.store.private_folder import PrivateFolder

Fingerprint = tuple[int, int, int, int]
"""Size, mtime in ns, inode, and ctime in ns. A forger in a shared cache may choose all but the last."""
_NONE: Fingerprint = (-1, 0, 0, 0)

JOURNAL = "verified.jsonl"


class BlobState(Enum):
    """The state of a blob as it is now. Only blobs in the first two states may be served."""

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


@dataclass(frozen=True, slots=True)
class _Check:
    """The last check of a blob: its fingerprint then, and whether its content was right."""

    found: Fingerprint
    right: bool

    def state(self, now: Fingerprint) -> BlobState:
        if self.found[:3] != now[:3]:
            return BlobState.CHANGED
        if not self.right:
            return BlobState.DAMAGED
        return BlobState.VERIFIED if self.found == now else BlobState.UNKNOWN


class VerifiedBlobs:
    """A journal of JSON lines, `{"etag", "size", "mtime_ns", "inode", "ctime_ns"}`, of which the last line of an etag
    counts. The line of a damaged blob also has `"damaged": true`. It lies in the private folder, where no other user
    can add lines.

    An append is cheap for thousands of files, several processes may append at once, and an incomplete line from a crash
    is skipped. The loss of the journal costs only hashing: where no place can be written to, the checks of this process
    are kept in memory.

    Where the cache cannot be written to, there is a second journal in the place for writing. The journal for writing
    goes before the other one, if it knows the blob as it is now.
    """

    def __init__(self, private: PrivateFolder) -> None:
        self._private = private
        self._lock = threading.Lock()
        self._journals: dict[Path, _Journal] = {}
        self._unwritten: dict[str, _Check] = {}

    def holds(self, etag: str, blob: Path) -> bool:
        """Whether the hash of `blob`, as it is now, was found to be `etag`."""
        return self.states({etag: fingerprint(blob)})[etag] is BlobState.VERIFIED

    def states(self, found: Mapping[str, Fingerprint | None]) -> dict[str, BlobState]:
        """The state of each blob by etag; `found` has their present fingerprints, None for a missing one."""
        with self._lock:
            known = self._known()
            return {etag: _state(known, etag, now) for etag, now in found.items()}

    def add(self, found: Mapping[str, Fingerprint]) -> None:
        """Record that the blobs with these fingerprints have the hash that is their etag."""
        self._record({etag: _Check(now, right=True) for etag, now in found.items()})

    def add_damaged(self, found: Mapping[str, Fingerprint]) -> None:
        """Record that the blobs with these fingerprints are damaged."""
        self._record({etag: _Check(now, right=False) for etag, now in found.items()})

    def forget(self, etag: str) -> None:
        """Remove the record of `etag`: its blob was removed."""
        with self._lock:
            if any(etag in checks for checks in self._known()):
                self._append({etag: _Check(_NONE, right=True)})

    def _record(self, checks: Mapping[str, _Check]) -> None:
        with self._lock:
            known = self._known()
            self._append({etag: check for etag, check in checks.items() if _latest(known, etag, check.found) != check})

    def _append(self, checks: Mapping[str, _Check]) -> None:
        if not checks:
            return
        lines = "".join(f"{_line(etag, check)}\n" for etag, check in checks.items())
        try:
            descriptor = os.open(self._private.made / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except (OSError, LocalResource):
            if self._private.writable:
                raise
            self._unwritten |= checks
            return
        try:
            # The leading newline ends a line that a crash left incomplete.
            os.write(descriptor, f"\n{lines}".encode())
        finally:
            os.close(descriptor)

    def _known(self) -> list[dict[str, _Check]]:
        """The checks that this and other processes have recorded, the journal for writing first."""
        found = [self._unwritten]
        for place in self._private.places:
            journal = self._journals.setdefault(place, _Journal())
            journal.catch_up(place / JOURNAL)
            found.append(journal.checks)
        return found


class _Journal:
    """The content of one journal, as far as it is read."""

    def __init__(self) -> None:
        self.checks: dict[str, _Check] = {}
        self._read = 0

    def catch_up(self, path: Path) -> None:
        """Read the lines that were appended since."""
        try:
            with path.open("rb") as journal:
                if os.fstat(journal.fileno()).st_size < self._read:
                    self.checks, self._read = {}, 0
                journal.seek(self._read)
                data = journal.read()
        except OSError:
            self.checks, self._read = {}, 0
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
        if found == _NONE:
            self.checks.pop(etag, None)
        else:
            self.checks[etag] = _Check(found, entry.get("damaged") is not True)


def _latest(known: list[dict[str, _Check]], etag: str, now: Fingerprint) -> _Check | None:
    """The check that counts for a blob with the fingerprint `now`."""
    checks = [checks[etag] for checks in known if etag in checks]
    return next((check for check in checks if check.found == now), checks[0] if checks else None)


def _state(known: list[dict[str, _Check]], etag: str, now: Fingerprint | None) -> BlobState:
    if now is None:
        return BlobState.MISSING
    check = _latest(known, etag, now)
    return check.state(now) if check else BlobState.UNKNOWN


def _line(etag: str, check: _Check) -> str:
    size, mtime_ns, inode, ctime_ns = check.found
    plain: dict[str, object] = {
        "etag": etag,
        "size": size,
        "mtime_ns": mtime_ns,
        "inode": inode,
        "ctime_ns": ctime_ns,
    }
    return json.dumps(plain | ({} if check.right else {"damaged": True}))


def fingerprint(blob: Path) -> Fingerprint | None:
    """The fingerprint of `blob` now; None if it cannot be read."""
    try:
        return fingerprint_of(blob.lstat())
    except OSError:
        return None


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """The fingerprint of the file with this status."""
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


class BlobMarks:
    """One empty file per etag in the folder `name`; its modification time is when the mark was set. Methods block."""

    def __init__(self, private: PrivateFolder, name: str, *, clock: Callable[[], float] = time.time) -> None:
        self._private = private
        self._name = name
        self._clock = clock

    @translated()
    def set(self, file: ManifestFile) -> None:
        """Mark `file` as of now."""
        folder = self._private.made / self._name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.etag).touch()

    @translated()
    def renew(self, file: ManifestFile) -> None:
        """As `set` if `file` is marked; otherwise nothing."""
        with suppress(FileNotFoundError):
            os.utime(self._private.existing / self._name / file.etag)

    def time(self, etag: str) -> float | None:
        """When the mark was set, in seconds since the epoch; None if it is not set.

        A time in the future, from before the clock was set back, counts as now from the first look on.
        """
        times = (self._time(place / self._name / etag) for place in self._private.places)
        return max((at for at in times if at is not None), default=None)

    def _time(self, path: Path) -> float | None:
        now = self._clock()
        try:
            at = path.stat().st_mtime
        except OSError:
            return None
        if at > now:
            at = now
            with suppress(OSError):
                os.utime(path, (now, now))
        return at

    @translated()
    def remove(self, etag: str) -> None:
        """Remove the mark, if it is set."""
        (self._private.existing / self._name / etag).unlink(missing_ok=True)
