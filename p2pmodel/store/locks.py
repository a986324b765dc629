"""The cache's own lock files, which huggingface_hub takes around each blob."""

import threading
import time
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from p2pmodel.domain.manifest import ManifestFile
from p2pmodel.domain.names import RepoId
from p2pmodel.errors import Unavailable

PATIENCE = 60.0
"""Seconds to wait for a client that holds a blob's lock."""

POLL = 0.05


class BlobLocks:
    """`<hub>/.locks/models--org--name/<etag>.lock`, held once per process: taking one again only counts.

    So an endpoint may hold a blob's lock for its clients to wait on, while the node of the same process publishes
    that blob. Between threads it excludes nothing: publishing is one rename.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        self._held: dict[Path, tuple[BaseFileLock, int]] = {}

    def try_acquire(self, repo: RepoId, file: ManifestFile) -> bool:
        """Take the lock if it is free or already ours. Does not wait."""
        path = self._path(repo, file)
        with self._mutex:
            if path in self._held:
                lock, count = self._held[path]
                self._held[path] = (lock, count + 1)
                return True
            path.parent.mkdir(parents=True, exist_ok=True)
            taken = take_lock(path)
            if taken is not None:
                self._held[path] = (taken, 1)
            return taken is not None

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
        """What to raise when the lock was not to be had."""
        return Unavailable(
            f"another process has held {self._path(repo, file)} for {patience:.0f} seconds",
            hint="let its download finish or stop it, then run the same command: it resumes",
        )

    def _path(self, repo: RepoId, file: ManifestFile) -> Path:
        return self._folder / repo.cache_folder / f"{file.etag}.lock"


def take_lock(path: Path) -> BaseFileLock | None:
    """The lock file at `path`, taken; None while somebody else has it. Does not wait. Its folder must exist."""
    # Not thread-local: an event loop takes it in one thread and may give it back in another.
    # Mode 0664 as huggingface_hub: several users may share a cache.
    for kind in (FileLock, SoftFileLock):
        lock = kind(path, mode=0o664, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except NotImplementedError:  # no flock on this file system: huggingface_hub takes a soft lock then
            continue
        return lock
    return None
