"""Try a failed transfer again by itself: after a pause where no source answered, once there is space where the disk was
full. Any other failure needs the user."""

import asyncio
import time
from collections.abc import Callable, Iterable

from p2pmodel.core.backoff import Backoff
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import NoSpace, P2PModelError, Unavailable
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.space import free_bytes

FIRST_RETRY = 30.0
"""Seconds after which a failed transfer is tried again; doubles with each further try."""
LAST_RETRY = 600.0
LOOK_EVERY = 10.0
"""Seconds between two looks at the free space of a full disk."""


class TransferRetry:
    """The next try of one transfer into `repo`, if it is due; `try_again` is called then, on the event loop."""

    def __init__(self, repo: RepoCache, try_again: Callable[[], None]) -> None:
        self._repo = repo
        self._try_again = try_again
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        self._task: asyncio.Task[None] | None = None

    def failed(self, error: P2PModelError, files: Iterable[ManifestFile]) -> str:
        """The transfer of `files` has failed. It is tried again if it may succeed by itself; returns when, in words."""
        self.cancel()
        if isinstance(error, NoSpace):
            self._task = asyncio.create_task(self._once_there_is_space(list(files)))
            return "; it goes on by itself once there is space"
        if isinstance(error, Unavailable):
            pause = self._backoff.failed()
            self._task = asyncio.create_task(self._after(pause))
            return f"; it is tried again in {pause:.0f} s"
        return ""

    def succeeded(self) -> None:
        """The next failure is the first."""
        self._backoff.succeeded()

    def cancel(self) -> None:
        """Do not try again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._due()

    async def _once_there_is_space(self, files: list[ManifestFile]) -> None:
        """A quota may forbid what the disk has free: hence the pause."""
        earliest = time.monotonic() + self._backoff.failed()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if time.monotonic() >= earliest and await asyncio.to_thread(self._has_space, files):
                break
        self._due()

    def _has_space(self, files: list[ManifestFile]) -> bool:
        try:
            lacking = self._repo.lacking(files)
            needed = sum(file.size for file in lacking) - self._repo.staged.size_of(lacking)
            return free_bytes(self._repo.folder) >= max(needed, 1)
        except (OSError, P2PModelError):
            return False

    def _due(self) -> None:
        self._task = None  # it is this task, which ends now
        self._try_again()
