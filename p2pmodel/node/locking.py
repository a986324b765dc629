"""One fetch of a snapshot at a time on a node: two commands would write the same staged files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from filelock import FileLock, Timeout

from p2pmodel.node.progress import Progress, Reporter
from p2pmodel.store.cache import RepoCache

RETRY = 0.5


@asynccontextmanager
async def one_at_a_time(repo: RepoCache, commit: str, reporter: Reporter) -> AsyncIterator[None]:
    """Hold this snapshot's lock. While another process holds it, wait and say so: it will have done the work.

    The wait has no bound of its own: the other process has, and the lock goes with it, however it ends.
    """
    folder = repo.private / "locks"
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    lock = FileLock(folder / f"{commit}.lock", timeout=0, thread_local=False)
    told = False
    while True:
        try:
            await asyncio.to_thread(lock.acquire)
            break
        except Timeout:
            if not told:
                reporter.note(f"another p2pmodel on this machine is fetching {repo.repo}; waiting for it")
                told = True
            reporter.progress(Progress("finding", waiting_for="the other p2pmodel process"))
            await asyncio.sleep(RETRY)
    try:
        yield
    finally:
        lock.release()
