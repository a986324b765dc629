"""Locks between processes of p2pmodel that hold on every file system.

On a network disk flock may be missing, or lock out only the processes of one machine. So the holder also makes a record
beside the lock file, with O_EXCL, which works everywhere. Invariants, to re-check when editing:

1. A lock is held by the process of which the record is there. It renews the record every `RENEW_EVERY` seconds.
2. The record of another process is removed only if that process has ended on this machine, or has not renewed it for
   `EXPIRES_AFTER` seconds on the clock of the process that waits: clocks of machines are never compared.
3. A holder that was passed over, after a long pause of its machine, is told: `ProcessLock.lost`.
"""

import errno
import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from p2pmodel.core.content.names import printable
from p2pmodel.core.files.private_files import FILE_MODE
from p2pmodel.errors import Unavailable
from p2pmodel.os_errors import named, translated
from p2pmodel.store.files.disk import boot_id
from p2pmodel.store.files.folder import Folder

RENEW_EVERY = 5.0
EXPIRES_AFTER = 30.0
ENOUGH_TO_EXPIRE = EXPIRES_AFTER + RENEW_EVERY
"""Seconds in which the record of a process that has ended elsewhere expires for certain."""
POLL = 0.2

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""Errors of a file system without flock."""
TAKEN = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
_MAX_RECORD = 1024


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that holds a lock, according to its record. `start` identifies it on its machine."""

    pid: int
    host: str
    start: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {printable(self.host, 80)}"

    def ended(self, *, locked: bool) -> bool:
        """Whether it ran on this machine and has ended. `locked`: this process has the flock of the lock file, which it
        had, too. A process elsewhere cannot be asked, and of one in another container only the flock is known."""
        kernel, _, rest = self.start.partition(" ")
        namespace, _, began = rest.partition(" ")
        if not began or kernel != boot_id():
            return False
        if namespace != _process_namespace():
            return locked
        return self.host == host_name() and began != _began(self.pid)


@dataclass(frozen=True, slots=True)
class _Sight:
    """A record as it was seen: its content, and what changes when it is renewed."""

    text: str
    changed: tuple[int, int, int]


class ProcessLock:
    """A held lock. `lost` is set when another process has passed over this one."""

    def __init__(self, record: Path, descriptor: int | None, mark: str, *, passed_over: LockHolder | None) -> None:
        self.lost = threading.Event()
        self.passed_over = passed_over
        """The holder on another machine that did not renew its record. It may still run."""
        self._record = record
        self._descriptor = descriptor
        self._mark = mark
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lock {record.name}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Release the lock."""
        self._released.set()
        self._thread.join()
        try:
            if self.held():
                self._record.unlink(missing_ok=True)
        except OSError:
            pass  # it expires
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)

    def held(self) -> bool:
        """Whether the record is still that of this process."""
        sight = _look(self._record)
        return sight is not None and sight.text == self._mark

    def check(self) -> None:
        """Raise Unavailable if another process has passed over this one. Before a step that the lock protects: the
        renewal notices it some seconds later."""
        sight = _look(self._record)
        if self.lost.is_set() or (sight is not None and sight.text != self._mark):
            self.lost.set()
            raise passed_over(self._record)

    def _renew(self) -> None:
        while not self._released.wait(RENEW_EVERY):
            with suppress(OSError):  # the disk does not answer: others see the record expire
                if not self.held() and not _make(self._record, self._mark):
                    self.lost.set()
                    return
                os.utime(self._record)


class LockSearch:
    """One process's attempts to take the lock file `path`. `holder` is the process that held it at the last one."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.holder: LockHolder | None = None
        self.may_expire = False
        """Whether only the record of a process that cannot be asked is in the way: it expires unless it is renewed."""
        self._clock = clock
        self._record = path.with_name(f"{path.name.removesuffix('.lock')}.holder.lock")
        self._seen: tuple[_Sight, float] | None = None

    def take(self) -> ProcessLock | None:
        """Take the lock; None while another process holds it. Does not wait. Raises OSError."""
        descriptor = _flock(self.path)
        self.may_expire = descriptor != _BUSY
        if descriptor == _BUSY:
            sight = _look(self._record)
            self.holder = holder_in(sight.text) if sight else None
            return None
        lock = None
        try:
            lock = self._take(None if descriptor == _MISSING else descriptor)
        finally:
            if lock is None and descriptor != _MISSING:
                os.close(descriptor)
        return lock

    @translated()
    def look(self) -> None:
        """Watch the record of the present holder: it may expire while this process waits for another lock."""
        sight = _look(self._record)
        if sight is not None:
            self._expired(sight)

    @translated()
    def wait(self, patience: float = 0.0, *, say: Callable[[str], None] = lambda _text: None) -> ProcessLock | None:
        """Take the lock; None after `patience` seconds without it, or later as long as its record may expire. `say`
        gets what it waits for, once. Blocks."""
        began, said = self._clock(), False
        while (lock := self.take()) is None:
            waited = self._clock() - began
            if waited >= patience and not (self.may_expire and waited < ENOUGH_TO_EXPIRE):
                return None
            if not said:
                say(f"waiting for {self.waits_for()}")
                said = True
            time.sleep(POLL)
        return lock

    def waits_for(self) -> str:
        """The lock file and its holder, in words."""
        return f"{named(str(self.path))}, held by {self.holder or 'another process'}"

    def busy(self, seconds: float) -> Unavailable:
        """The error after `seconds` without the lock."""
        return Unavailable(
            f"{self.holder or 'another process'} has held {named(str(self.path))} for {seconds:.0f} seconds",
            hint="let it finish or stop it, then run the same command",
        )

    def _take(self, descriptor: int | None) -> ProcessLock | None:
        passed_over: LockHolder | None = None
        for _ in range(2):
            mark = _mark()
            if _make(self._record, mark):
                return ProcessLock(self._record, descriptor, mark, passed_over=passed_over)
            sight = _look(self._record)
            if sight is None:
                continue
            self.holder = holder_in(sight.text)
            ended = self.holder is not None and self.holder.ended(locked=descriptor is not None)
            if not (ended or self._expired(sight)) or not _remove(self._record, sight):
                return None
            passed_over = None if ended else self.holder or LockHolder(0, "another machine")
        return None

    def _expired(self, sight: _Sight) -> bool:
        now = self._clock()
        if self._seen is None or self._seen[0] != sight:
            self._seen = sight, now
        return now - self._seen[1] >= EXPIRES_AFTER


@contextmanager
def process_lock(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock file `path`. Raises Unavailable after `patience` seconds. Blocks: call in a thread."""
    search = LockSearch(path)
    lock = search.wait(patience)
    if lock is None:
        raise search.busy(patience)
    try:
        yield
    finally:
        lock.release()


def passed_over(path: Path) -> Unavailable:
    """The error of a process that another machine has passed over, with the lock file or its record."""
    return Unavailable(
        f"another machine has taken {named(str(path))} while this process stood still",
        hint="run the same command again: it resumes",
    )


@cache
def host_name() -> str:
    """The name of this machine, on one line."""
    return "".join(c for c in socket.gethostname() if c.isprintable() and not c.isspace()) or "localhost"


_BUSY = -1
_MISSING = -2


def _flock(path: Path) -> int:
    """A descriptor with the flock of `path`; _BUSY if another process of this machine has it; _MISSING if there is no
    flock."""
    with Folder.open(path.parent, make=True) as folder:
        descriptor = folder.open_file(path.name, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in NO_LOCKS:
            return _MISSING
        if error.errno in TAKEN:
            return _BUSY
        raise
    return descriptor


def _process_namespace() -> str:
    """The namespace of this process's number: containers have their own."""
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "-"


def _began(pid: int) -> str:
    """When the process started, in the kernel's words; "" if there is none, or if it has ended and its parent has not
    asked for its exit code yet (a container without an init process keeps such processes)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return ""


def _mark() -> str:
    """The content of a record: process number and host as in filelock's soft locks, then what identifies the process,
    and this lock."""
    pid = os.getpid()
    return f"{pid}\n{host_name()}\n{boot_id()} {_process_namespace()} {_began(pid)}\n{secrets.token_hex(8)}\n"


def holder_in(text: str) -> LockHolder | None:
    """The holder that a record names, or a soft lock of filelock; None if it names none."""
    lines = text.splitlines()
    try:
        return LockHolder(int(lines[0]), lines[1], lines[2] if len(lines) > 2 else "")
    except (ValueError, IndexError):
        return None


def _make(record: Path, mark: str) -> bool:
    """Make the record, unless there is one."""
    try:
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, mark.encode())
    except OSError:
        record.unlink(missing_ok=True)  # a full disk
        raise
    finally:
        os.close(descriptor)
    return True


def _look(record: Path) -> _Sight | None:
    """The record; None if there is none. To open it makes a network disk ask the server."""
    try:
        descriptor = os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        text = os.read(descriptor, _MAX_RECORD).decode(errors="replace")
        return _Sight(text, (status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
    finally:
        os.close(descriptor)


def _remove(record: Path, sight: _Sight) -> bool:
    """Remove the record as it was seen. One that another process has put in its place meanwhile goes back."""
    aside = record.with_name(f"{record.name}.{secrets.token_hex(8)}")
    try:
        record.rename(aside)
    except FileNotFoundError:
        return True
    moved = _look(aside)
    if moved is None or moved.text == sight.text:
        aside.unlink(missing_ok=True)
        return True
    with suppress(FileExistsError):
        os.link(aside, record)
    aside.unlink(missing_ok=True)
    return False
