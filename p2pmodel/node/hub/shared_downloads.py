"""The files that clients of a hub endpoint wait for: each is downloaded by one task, however many clients wait."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.errors import IntegrityError, NotYet, P2PModelError, Unavailable
from p2pmodel.node.reporter import Reporter
from p2pmodel.store.cache import BlobKey, RepoCache
from p2pmodel.store.growing_file import GrowingFile


class SharedDownload:
    """One file that is being downloaded as part of `manifest`, and its task."""

    def __init__(self, manifest: Manifest, growing: GrowingFile) -> None:
        self.manifest = manifest
        self.growing = growing
        self.task: asyncio.Task[None]
        self._clients = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def repo(self) -> RepoCache:
        """Where the file goes."""
        return self.growing.repo

    @property
    def file(self) -> ManifestFile:
        """The file."""
        return self.growing.file

    @contextmanager
    def client(self, linger: float) -> Iterator[None]:
        """One more client waits while the context lasts; `linger` seconds after the last has left, the task is
        cancelled."""
        self._clients += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            yield
        finally:
            self._clients -= 1
            if not self._clients:
                self._timer = asyncio.get_running_loop().call_later(linger, self.task.cancel)


class SharedDownloads:
    """The downloads that are running. `download(shared)` returns once the blob is in the cache, or raises."""

    def __init__(self, download: Callable[[SharedDownload], Awaitable[None]], reporter: Reporter) -> None:
        self._download = download
        self._reporter = reporter
        self._running: dict[BlobKey, SharedDownload] = {}

    def __len__(self) -> int:
        return len(self._running)

    def get(self, key: BlobKey) -> SharedDownload | None:
        """The running download of this content."""
        return self._running.get(key)

    def start(
        self, manifest: Manifest, growing: GrowingFile, on_end: Callable[[], None] = lambda: None
    ) -> SharedDownload:
        """Download the file, which is not running yet; its readers get the outcome. `on_end` is called in any case."""
        shared = self._running[growing.repo.key(growing.file)] = SharedDownload(manifest, growing)
        shared.task = asyncio.create_task(self._run(shared))
        # A callback, since a task that is cancelled before its first step runs no `finally`.
        shared.task.add_done_callback(lambda task: self._ended(shared, task, on_end))
        return shared

    def sizes(self) -> dict[BlobKey, int]:
        """Bytes of each file that is being downloaded."""
        return {key: shared.file.size for key, shared in self._running.items()}

    async def close(self) -> None:
        """Cancel all and wait for their ends."""
        tasks = [shared.task for shared in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, shared: SharedDownload) -> None:
        try:
            await self._download(shared)
        except IntegrityError:
            await asyncio.to_thread(shared.repo.mark_corrupt, shared.file)
            raise

    def _ended(self, shared: SharedDownload, task: asyncio.Task[None], on_end: Callable[[], None]) -> None:
        del self._running[shared.repo.key(shared.file)]
        error = _error_of(shared, task)
        if error is None:
            shared.growing.published()
        else:
            shared.growing.fail(error)
            if not (task.cancelled() or isinstance(error, NotYet)):
                self._reporter.note(
                    notes.error(
                        "download_failed",
                        f"download failed: {shared.file.path} of {shared.repo.repo}: {error}",
                        repo=str(shared.repo.repo),
                        file=shared.file.path,
                    )
                )
        on_end()


def _error_of(shared: SharedDownload, task: asyncio.Task[None]) -> Exception | None:
    if task.cancelled():
        return Unavailable(f"the download of {shared.file.path} was stopped", hint="try again: it resumes")
    error = task.exception()
    if error is None or isinstance(error, P2PModelError):
        return error
    task.get_loop().call_exception_handler({"message": "download failed", "exception": error, "task": task})
    return error if isinstance(error, Exception) else Unavailable(f"the download of {shared.file.path} failed")
