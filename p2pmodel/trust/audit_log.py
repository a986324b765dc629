"""The audit log of one server on disk: chained lines, in files that follow each other.

Invariants, to re-check when editing:
1. A line is in the file before the client gets its first byte; it is on the disk `SYNC_EVERY` seconds later.
2. The first line of a file covers the last line of the file before it: rotation does not end the chain.
3. One process writes a log. A second one is refused.
"""

import asyncio
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cachetools import TTLCache

from p2pmodel.core.content.names import printable
from p2pmodel.core.files.hash_chain import MAX_LINE, LogCheck, LogHead, append_line, head_before, head_of
from p2pmodel.core.files.private_files import FILE_MODE, private_folder
from p2pmodel.core.network.addresses import neighbourhood
from p2pmodel.core.network.rights import OPEN, Right
from p2pmodel.errors import IntegrityError, LocalResource, NotFound
from p2pmodel.os_errors import translated

NAME = "audit log"
SYNC_EVERY = 1.0
SUFFIX = ".jsonl"

_CLOSED = re.compile(r"(?P<server>.+)\.(?P<first>[0-9]{12})\.jsonl")

AGAIN_AFTER = 300.0
"""Seconds after which a client that still reads the same file is recorded again: clients request a file in parts."""
_MOST_RECENT = 50_000
MOST_REFUSALS = 100
"""Repositories for which refusals of one client are recorded in that time: a client may name as many as it likes."""
_LONGEST_NAME = 200
REFUSED = "refused"
"""The value of `what` in a line about a refusal."""


class AuditLog:
    """The log `server` in `folder`, which goes on in a new file after `rotate_bytes`. `open` first, `close` last."""

    def __init__(self, folder: Path, server: str, rotate_bytes: int, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._server = server
        self._path = folder / f"{server}{SUFFIX}"
        self._rotate_bytes = rotate_bytes
        self._clock = clock
        self._descriptor = -1
        self._lock = -1
        self._size = 0
        self._first = 0
        self._head = LogHead()
        self._unsynced = False

    @translated()
    def open(self) -> None:
        """Continue the log. Blocks. Raises LocalResource if another process writes it, and IntegrityError if it cannot
        be continued."""
        private_folder(self._folder)
        self._lock = os.open(
            self._folder / f"{self._server}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = -1
            raise LocalResource(
                f"another process writes the {NAME} {self._path}", hint="stop it, or set another audit.folder"
            ) from None
        before = LogHead()
        for path in files_of(self._folder, self._server):
            if path != self._path:
                before = _last(path) or before
        self._begin_file(before)

    @translated()
    def close(self) -> None:
        """Bring the last lines to the disk. Blocks."""
        if self._descriptor >= 0:
            self.sync()
            os.close(self._descriptor)
            self._descriptor = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def record(self, content: Mapping[str, Any]) -> None:
        """Append a line. Raises LocalResource, NoSpace: then nothing was recorded.

        On the event loop on purpose: a line to the page cache takes less time than a switch to a thread.
        """
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        with translated():
            if self._size >= self._rotate_bytes:
                self._rotate()
            line, head = append_line(self._head, {"time": now, **content})
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.ftruncate(self._descriptor, self._size)
                raise LocalResource(f"the {NAME} {self._path} cannot be written: the disk is full")
        self._head, self._size, self._unsynced = head, self._size + len(line), True

    async def run(self) -> None:
        """Bring new lines to the disk until cancelled."""
        while True:
            await asyncio.sleep(SYNC_EVERY)
            if self._unsynced:
                with suppress(OSError):
                    await asyncio.to_thread(self.sync)

    def sync(self) -> None:
        """Bring the lines to the disk. Blocks."""
        self._unsynced = False
        os.fdatasync(self._descriptor)

    def _begin_file(self, before: LogHead) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, FILE_MODE)
        whole = _whole(self._descriptor)
        os.ftruncate(self._descriptor, whole)  # a last line without newline is from a crash
        self._head, self._size = _last(self._path) or before, whole
        self._first = head_before(_first_line(self._path), NAME).seq + 1 if whole else before.seq + 1

    def _rotate(self) -> None:
        os.fdatasync(self._descriptor)
        self._path.rename(self._folder / f"{self._server}.{self._first:012d}{SUFFIX}")
        os.close(self._descriptor)
        self._begin_file(self._head)


def files_of(folder: Path, server: str) -> list[Path]:
    """The files of a log, the oldest first; the last one is written to."""
    closed = sorted(
        path for path in folder.glob(f"*{SUFFIX}") if (m := _CLOSED.fullmatch(path.name)) and m["server"] == server
    )
    current = folder / f"{server}{SUFFIX}"
    return [*closed, *([current] if current.is_file() else [])]


def servers_of(folder: Path) -> list[str]:
    """The names of the logs in `folder`, sorted."""
    names = {path.name for path in folder.glob(f"*{SUFFIX}")}
    return sorted({m["server"] if (m := _CLOSED.fullmatch(name)) else name.removesuffix(SUFFIX) for name in names})


@translated()
def lines_of(folder: Path, server: str) -> Iterator[bytes]:
    """All lines of a log. Raises NotFound if there is none."""
    files = files_of(folder, server)
    if not files:
        raise NotFound(f"there is no {NAME} of '{server}' in {folder}", hint="set audit.enabled")
    for path in files:
        with path.open("rb") as log:
            while line := log.readline(MAX_LINE):
                yield line


def verify_audit(folder: Path, server: str, expect: str | None = None) -> tuple[int, LogHead]:
    """Check every line of a log. Returns the number of its first line, and its end. Raises IntegrityError.

    A log begins later where its oldest files were taken away; `expect`, the hash of a line, must then be in the rest.
    """
    check: LogCheck | None = None
    first = 1
    for line in lines_of(folder, server):
        if check is None:
            begin = head_before(line, NAME)
            first = begin.seq + 1
            check = LogCheck(expect, log=NAME, begin=begin)
        check.feed(line)
    return first, (check or LogCheck(expect, log=NAME)).end()


def _whole(descriptor: int) -> int:
    """Bytes up to the last newline."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, 2 * MAX_LINE, max(0, size - 2 * MAX_LINE))
    end = tail.rfind(b"\n") + 1
    if not end and size > len(tail):
        raise IntegrityError(f"the end of the {NAME} is damaged", hint="move the log away to start a new one")
    return size - (len(tail) - end)


def _last(path: Path) -> LogHead | None:
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - 2 * MAX_LINE))
        lines = log.read().splitlines(keepends=True)
    return head_of(lines[-1], NAME) if lines else None


def _first_line(path: Path) -> bytes:
    with path.open("rb") as log:
        return log.readline(MAX_LINE)


class AuditTrail:
    """Records into `log` what clients get, and what is refused to them.

    Each client and file is recorded once in a while, however many requests it sends for it.
    """

    def __init__(self, log: AuditLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._recent: TTLCache[tuple[str, ...], None] = TTLCache(_MOST_RECENT, AGAIN_AFTER, timer=clock)
        self._refused: TTLCache[tuple[str, str], int] = TTLCache(_MOST_RECENT, AGAIN_AFTER, timer=clock)

    def record(
        self, right: Right, client: str, what: str, repo: str, commit: str, *, path: str = "", digest: str = ""
    ) -> None:
        """Record that the client at the address `client` gets something of a snapshot. Raises LocalResource if that
        cannot be done.

        `what`: `file`, `torrent`, `lease`, `announce`, `publish`, `alias`, or `answer` of a served model. `path` is
        that of the file, or the alias.
        `digest` is the hub's hash of the file, or the torrent's info-hash. Each move of an alias is recorded, and of
        everything else the first in a while.
        """
        key = (right.subject, client, what, repo, commit, path, digest)
        if key in self._recent and what != "alias":
            return
        entry = {"subject": right.subject, "right": right.reason, "client": client, "what": what}
        self._log.record(entry | {"repo": repo, "commit": commit, "path": path, "digest": digest})
        self._recent[key] = None

    def refuse(self, subject: str, reason: str, client: str, verb: str, repo: str) -> None:
        """Record that a client was refused `verb` for `repo` ("": for none in particular). Raises as `record`.

        Clients without a credential are not recorded: they are as many as there are addresses.
        """
        repo = printable(repo, _LONGEST_NAME)
        key, source = (subject, client, REFUSED, verb, repo), (subject, neighbourhood(client))
        if subject == OPEN.subject or key in self._recent or self._refused.get(source, 0) >= MOST_REFUSALS:
            return
        entry = {"subject": subject, "right": reason, "client": client, "what": REFUSED}
        self._log.record(entry | {"repo": repo, "commit": "", "path": "", "digest": "", "verb": verb})
        self._recent[key] = None
        self._refused[source] = self._refused.get(source, 0) + 1
