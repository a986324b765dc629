"""The lock of a snapshot on one machine: two commands would write the same staged files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from p2pmodel.core import notes
from p2pmodel.node.reporter import Progress, Reporter
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.locks import take_lock

RETRY = 0.5


@asynccontextmanager
async def one_at_a_time(repo: RepoCache, commit: str, reporter: Reporter) -> AsyncIterator[None]:
    """Hold this snapshot's lock. While another process holds it, report that and wait: it does the same work.

    The wait has no limit of its own: the other process has one, and its end releases the lock.
    """
    path = await asyncio.to_thread(repo.staging(commit).lock_path)
    reported = False
    while True:
        # Not in a thread: this does not wait, and a cancelled thread might take the lock and never release it.
        with translated():
            lock = take_lock(path)
        if lock is not None:
            break
        if not reported:
            reporter.note(
                notes.info(
                    "lock_wait",
                    f"another p2pmodel on this machine is fetching {repo.repo}; waiting for it",
                    repo=str(repo.repo),
                )
            )
            reported = True
        reporter.progress(Progress("finding", waiting_for="the other p2pmodel process"))
        await asyncio.sleep(RETRY)
    try:
        yield
    finally:
        lock.release()
