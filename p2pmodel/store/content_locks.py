"""Locks of contents: the owners of a repository's unfinished ones, and the lock files that huggingface_hub takes.

One download writes the staged file of a content. Processes exclude each other by one lock for all contents of the
repository: it holds on every file system, between machines, too (`store/process_locks`). The downloads of one process
share that lock, and exclude each other by content. The lock files of blobs are those that huggingface_hub takes for
each download.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import SoftFileLock, Timeout

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import Unavailable
from p2pmodel.store.files.folder import Folder, read_regular
from p2pmodel.store.private_folder import PrivateFolder
from p2pmodel.store.process_locks import NO_LOCKS, TAKEN, LockHolder, LockSearch, ProcessLock, holder_in


class ContentClaim:
    """The `contents`, by etag, belong to this owner until `release`. `passed_over`: a process on another machine that
    may still write to them. `lost` is set when another machine has passed over this process."""

    def __init__(self, claims: "ContentClaims", contents: frozenset[str], lock: ProcessLock | None) -> None:
        """Use `ContentClaims.claim`."""
        self.contents = contents
        self.passed_over: LockHolder | None = None
        self.lost = lock.lost if lock else None
        self._claims = claims
        self._held = True

    def release(self) -> None:
        """Let others have them."""
        held, self._held = self._held, False
        if held and self.contents:
            self._claims.released(self.contents)


class ContentClaims:
    """All claims of this process to contents below `private`. Methods do not wait for another owner."""

    def __init__(self, private: PrivateFolder) -> None:
        self._private = private
        self._mutex = threading.Lock()
        self._owned: set[str] = set()
        self._lock: ProcessLock | None = None
        self._search: LockSearch | None = None

    def claim(self, etags: Iterable[str]) -> ContentClaim | None:
        """Claim these contents, all or none; None while another owner has one of them. Raises OSError."""
        contents = frozenset(etags)
        if not contents:
            return ContentClaim(self, contents, None)
        with self._mutex:
            if self._owned & contents or (self._lock is not None and self._lock.lost.is_set()):
                return None
            passed_over = None
            if self._lock is None:
                self._lock = self._searched().take()
                if self._lock is None:
                    return None
                passed_over = self._lock.passed_over
            self._owned |= contents
            claimed = ContentClaim(self, contents, self._lock)
            claimed.passed_over = passed_over
            return claimed

    def released(self, contents: frozenset[str]) -> None:
        """These contents have no owner any more."""
        with self._mutex:
            self._owned -= contents
            if not self._owned and self._lock is not None:
                lock, self._lock = self._lock, None
                lock.release()

    def look(self) -> None:
        """Watch the holder of the lock, as `LockSearch.look`."""
        with self._mutex:
            if self._lock is None:
                self._searched().look()

    def check(self) -> None:
        """Raise Unavailable if another machine has passed over this process: it may write the staged files by now."""
        with self._mutex:
            lock = self._lock
        if lock is not None:
            lock.check()

    @property
    def path(self) -> Path:
        """The lock file."""
        return self._private.made / "locks" / "contents.lock"

    def waits_for(self) -> str:
        """The owner of contents that could not be claimed, in words."""
        if self._lock is not None or self._search is None:
            return "another download of this process"
        return self._search.waits_for()

    def busy(self, seconds: float) -> Unavailable:
        """The error after `seconds` without the claim."""
        return Unavailable(
            f"{self.waits_for()} has files of the same content for {seconds:.0f} seconds",
            hint="let it finish or stop it, then try again: it resumes",
        )

    def _searched(self) -> LockSearch:
        """The search for the lock, which knows how long the record of another machine has not changed."""
        path = self.path
        if self._search is None or self._search.path != path:
            self._search = LockSearch(path)
        return self._search


PATIENCE = 60.0
"""Seconds to wait for a client that holds a blob's lock."""

POLL = 0.05

_MODE = 0o664
"""As in huggingface_hub: several users may share a cache."""


class HeldLock(Protocol):
    """A lock file that this process holds until `release`."""

    def release(self) -> None:
        """Release the lock."""


class BlobLocks:
    """`<hub>/.locks/models--org--name/<etag>.lock`, held once per process: a second acquisition only counts.

    So an endpoint may hold a blob's lock, on which its clients wait, while the node of the same process publishes that
    blob. Threads do not exclude each other: publishing is one rename.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        self._held: dict[Path, tuple[HeldLock, int]] = {}

    def try_acquire(self, repo: RepoId, file: ManifestFile) -> bool:
        """Take the lock if it is free or held by this process. Does not wait."""
        path = self._path(repo, file)
        with self._mutex:
            if path in self._held:
                lock, count = self._held[path]
                self._held[path] = (lock, count + 1)
                return True
            taken = take_lock(path, below=self._folder.parent)
            if taken is not None:
                self._held[path] = (taken, 1)
            return taken is not None

    def try_acquire_some(self, repo: RepoId, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """Take the free locks; returns their files. Does not wait; after an error none is taken."""
        taken: list[ManifestFile] = []
        with ExitStack() as undo:
            for file in files:
                if self.try_acquire(repo, file):
                    undo.callback(self.release, repo, file)
                    taken.append(file)
            undo.pop_all()
        return taken

    def acquire(self, repo: RepoId, file: ManifestFile, patience: float = PATIENCE) -> None:
        """Take the lock, waiting at most `patience` seconds; then Unavailable."""
        deadline = time.monotonic() + patience
        while not self.try_acquire(repo, file):
            if time.monotonic() >= deadline:
                raise self.busy(repo, file, patience)
            time.sleep(POLL)

    def release(self, repo: RepoId, file: ManifestFile) -> None:
        """Undo one successful acquisition."""
        path = self._path(repo, file)
        with self._mutex:
            lock, count = self._held.pop(path)
            if count > 1:
                self._held[path] = (lock, count - 1)
            else:
                lock.release()

    def busy(self, repo: RepoId, file: ManifestFile, patience: float) -> Unavailable:
        """The error after `patience` seconds without the lock."""
        path = self._path(repo, file)
        soft, process = _soft_holder(path), _flock_holder(path)
        holder = soft or (f"process {process}" if process else "another process")
        hint = "let its download finish or stop it, then run the same command: it resumes"
        if soft:
            hint = f"if that process has ended, remove the file; otherwise {hint}"
        return Unavailable(f"{holder} has held {path} for {patience:.0f} seconds", hint=hint)

    def _path(self, repo: RepoId, file: ManifestFile) -> Path:
        return self._folder / repo.cache_folder / f"{file.etag}.lock"


def take_lock(path: Path, mode: int = _MODE, *, below: Path | None = None) -> HeldLock | None:
    """Take the lock file at `path`, made with `mode`; None while another process holds it. Does not wait.

    Makes the folder of `path`. `below` is the folder above it that is trusted, its own by default; from there on no
    link of another user is followed.

    It is the same lock as that of filelock on Unix, and so of huggingface_hub: an exclusive
    flock on a file that stays. Filelock itself is not used: it needs 0.3 ms, as much as all other work on a small file.
    """
    trusted = below or path.parent
    way = path.parent.relative_to(trusted).parts
    with Folder.open(trusted, make=True) as root, root.enter(*way, make=True) as folder:
        descriptor, created = _opened(folder, path.name, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # else it was removed meanwhile, and locks no name
            return _Flock(descriptor)
    except OSError as error:
        if error.errno in NO_LOCKS:
            if created:
                path.unlink()  # if it stayed, others would take it for a soft lock
            os.close(descriptor)
            return _soft_lock(path)
        if error.errno not in TAKEN:
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None


@dataclass(frozen=True, slots=True)
class _Flock:
    descriptor: int

    def release(self) -> None:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)  # a child process may share the descriptor for a moment
        finally:
            os.close(self.descriptor)


def _opened(folder: Folder, name: str, mode: int) -> tuple[int, bool]:
    """A descriptor of the lock file, and whether this call created it."""
    try:
        descriptor = folder.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return folder.open_file(name, os.O_RDWR), False
    with suppress(PermissionError):
        os.fchmod(descriptor, mode)  # whatever the umask is
    return descriptor, True


def _soft_lock(path: Path) -> HeldLock | None:
    """On a file system without flock, huggingface_hub uses a lock that is held while its file exists."""
    # Not thread-local: an event loop takes it in one thread and may release it in another.
    lock = SoftFileLock(path, mode=_MODE, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _soft_holder(path: Path) -> str:
    """The holder that a soft lock names; "" for a lock file that names none, as those of flock."""
    try:
        return str(holder) if (holder := holder_in(read_regular(path, 1024).decode(errors="replace"))) else ""
    except OSError:
        return ""


def _flock_holder(path: Path) -> int:
    """The process of this machine that holds the flock of `path`, according to the kernel; 0 if it knows none."""
    with suppress(OSError, ValueError, IndexError):
        status = path.lstat()
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == place:
                return int(fields[4])
    return 0
