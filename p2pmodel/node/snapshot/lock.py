"""The lock of a snapshot in one cache: two processes would write the same staged files."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from p2pmodel.core import notes
from p2pmodel.core.tasks import companions, in_the_end
from p2pmodel.errors import Unavailable
from p2pmodel.node.reporter import Progress, Reporter
from p2pmodel.os_errors import named, translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.process_locks import EXPIRES_AFTER, LockSearch, ProcessLock

RETRY = 0.5
LOOK_EVERY = 1.0
PATIENCE = 3600.0
"""Seconds to wait for another process, which does the same work and has limits of its own."""


@asynccontextmanager
async def one_at_a_time(repo: RepoCache, commit: str, reporter: Reporter) -> AsyncIterator[None]:
    """Hold this snapshot's lock. While another process holds it, report which, and wait.

    Raises Unavailable after `PATIENCE` seconds, and in the body when another machine has passed over this process.
    """
    search = LockSearch(await asyncio.to_thread(repo.staging(commit).lock_path))
    lock = await _taken(search, repo, reporter)
    try:
        if (before := lock.passed_over) is not None:
            _note(reporter, repo, f"{before} has given no sign of life for {EXPIRES_AFTER:.0f} s: going on without it")
            await asyncio.to_thread(repo.staging(commit).detach)
        async with companions() as start:
            start(_until_lost(lock, search))
            yield
    finally:
        await in_the_end(asyncio.to_thread(lock.release))


async def _taken(search: LockSearch, repo: RepoCache, reporter: Reporter) -> ProcessLock:
    began, reported = time.monotonic(), False
    while True:
        # Not in a thread: this does not wait, and a cancelled thread might take the lock and never release it.
        with translated():
            lock = search.take()
        if lock is not None:
            return lock
        if not reported:
            _note(reporter, repo, f"waiting for {search.waits_for()}: it works on {repo.repo}, too")
            reported = True
        if time.monotonic() - began >= PATIENCE:
            raise search.busy(PATIENCE)
        reporter.progress(Progress("finding", waiting_for=f"{search.holder or 'another process'}"))
        await asyncio.sleep(RETRY)


async def _until_lost(lock: ProcessLock, search: LockSearch) -> None:
    while not lock.lost.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(LOOK_EVERY)
    raise Unavailable(
        f"another machine has taken {named(str(search.path))} while this process stood still",
        hint="run the same command again: it resumes",
    )


def _note(reporter: Reporter, repo: RepoCache, text: str) -> None:
    reporter.note(notes.info("lock_wait", text, repo=str(repo.repo)))
