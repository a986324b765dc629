"""The sync log on disk: every program that mirrors into a cache appends to it, and it is never rewritten.

It has a line per file, chained by hashes (`core/files/hash_chain`).
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.files.hash_chain import MAX_LINE, LogCheck, LogHead, append_line, head_of
from p2pmodel.core.files.private_files import FILE_MODE, make_folders
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import IntegrityError
from p2pmodel.os_errors import translated
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.process_locks import process_lock


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One file as it was synced at `time` (UTC, ISO 8601), with its sha256 and its etag on the hub.

    `sources` are the names of the mirrors that sent its bytes, except bytes that an earlier, stopped run downloaded.
    `vouched_by`: what listed the file with this etag for the commit, as `mirror NAME`; `record`: a mirror did so in an
    earlier run.
    """

    time: str
    repo: str
    commit: str
    path: str
    size: int
    etag: str
    sha256: str
    sources: Sequence[str]
    vouched_by: str


def append(head: LogHead, entry: LogEntry) -> tuple[bytes, LogHead]:
    """The line for `entry` after `head`, with its newline; and the new head."""
    return append_line(head, {**asdict(entry), "sources": list(entry.sources)})


_LOCK_PATIENCE = 30.0
_READ = 1 << 20


class SyncLog:
    """The log at `path`. Several processes may append at once: a lock file beside it makes them take turns."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock

    @translated()
    def check_end(self) -> None:
        """Raise IntegrityError unless the log can be continued. An incomplete last line, from a crash, is removed."""
        make_folders(self.path.parent)
        with self._opened() as descriptor:
            _head(descriptor)

    @translated()
    def record(
        self, manifest: Manifest, file: ManifestFile, content: Path, sources: Sequence[str], vouched_by: str
    ) -> None:
        """Append that `file`, verified at `content`, was synced now from `sources`. Durable on return."""
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        sha256 = file.sha256 or _sha256(content)
        of_file = (file.path, file.size, file.etag, sha256)
        entry = LogEntry(now, str(manifest.repo), manifest.commit, *of_file, sources, vouched_by)
        make_folders(self.path.parent)
        with self._opened() as descriptor:
            line, _ = append(_head(descriptor), entry)
            os.write(descriptor, line)
            os.fdatasync(descriptor)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with process_lock(self.path.with_name(f"{self.path.name}.lock"), _LOCK_PATIENCE):
            descriptor = open_regular(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, FILE_MODE)
            try:
                yield descriptor
            finally:
                os.close(descriptor)


@translated()
def verify_log(path: Path, expect: str | None = None) -> LogHead:
    """Check every line of the log at `path`. Raises IntegrityError for the first wrong line."""
    check = LogCheck(expect)
    with path.open("rb") as log:
        while line := log.readline(MAX_LINE):
            check.feed(line)
    return check.end()


@dataclass(frozen=True, slots=True)
class SyncedFile:
    """One line of a log, of a file that was synced. Times are as in the log."""

    seq: int
    time: str
    path: str
    sources: tuple[str, ...]
    vouched_by: str


@dataclass(frozen=True, slots=True)
class SyncedFiles:
    """The lines about one snapshot, of a log in which all lines were `checked`; `head` is the hash of its last line."""

    lines: tuple[SyncedFile, ...]
    checked: int
    head: str


@translated()
def synced_files(path: Path, manifest: Manifest) -> SyncedFiles:
    """The lines about the files of `manifest` in the log at `path`. Checks every line. Raises IntegrityError."""
    check, found = LogCheck(), []
    with path.open("rb") as log:
        while line := log.readline(MAX_LINE):
            check.feed(line)
            entry = parse_json(line)
            if (entry.get("repo"), entry.get("commit")) == (str(manifest.repo), manifest.commit):
                sources = tuple(map(str, entry.get("sources", ())))
                made, file, voucher = (str(entry.get(key, "")) for key in ("time", "path", "vouched_by"))
                found.append(SyncedFile(check.head.seq, made, file, sources, voucher))
    head = check.end()
    return SyncedFiles(tuple(found), head.seq, head.hash)


def _head(descriptor: int) -> LogHead:
    """The end of the log. A last line without newline is incomplete and is removed."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, 2 * MAX_LINE, max(0, size - 2 * MAX_LINE))
    whole = tail.rfind(b"\n") + 1
    if whole < len(tail):
        if not whole and size > len(tail):
            raise IntegrityError("the end of the sync log is damaged", hint="move it away to start a new log")
        os.ftruncate(descriptor, size - (len(tail) - whole))
    if not whole:
        return LogHead()
    start = tail.rfind(b"\n", 0, whole - 1) + 1
    return head_of(tail[start:whole])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb") as blob:
        while data := blob.read(_READ):
            digest.update(data)
    return digest.hexdigest()
