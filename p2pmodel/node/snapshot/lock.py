"""The lock of a snapshot in one cache, and the claim to contents that several snapshots may have: two downloads would
write the same staged files."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.tasks import companions, in_the_end, in_thread
from p2pmodel.node.reporter import Progress, Reporter
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.content_locks import ContentClaim
from p2pmodel.store.process_locks import EXPIRES_AFTER, LockSearch, ProcessLock, passed_over
from p2pmodel.store.state.verified_blobs import BlobState

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
        async with companions() as start:
            start(_until_lost(lock.lost, search.path))
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
        # A process that has ended elsewhere has left both its locks: they expire together.
        await asyncio.to_thread(repo.staged.claims.look)
        if not reported:
            _note(reporter, repo, f"waiting for {search.waits_for()}: it works on {repo.repo}, too")
            reported = True
        if time.monotonic() - began >= PATIENCE:
            raise search.busy(PATIENCE)
        reporter.progress(Progress("finding", waiting_for=f"{search.holder or 'another process'}"))
        await asyncio.sleep(RETRY)


async def _until_lost(lost: threading.Event, path: Path) -> None:
    while not lost.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(LOOK_EVERY)
    raise passed_over(path)


def _note(reporter: Reporter, repo: RepoCache, text: str) -> None:
    reporter.note(notes.info("lock_wait", text, repo=str(repo.repo)))


@asynccontextmanager
async def downloading(
    repo: RepoCache,
    manifest: Manifest,
    files: Sequence[ManifestFile],
    refs: Sequence[str],
    reporter: Reporter,
) -> AsyncIterator[None]:
    """Hold the lock of the snapshot and the claim to the contents of `files` that are not verified yet, and mark the
    download as begun; `refs` will point at the snapshot. The mark goes when all of `files` are published.

    Another snapshot may have the same contents. While it is downloaded, this one waits: it finds the contents then.
    """
    async with (
        one_at_a_time(repo, manifest.commit, reporter),
        _claimed(repo, partial(_lacking, repo, files), PATIENCE, reporter) as claimed,
    ):
        if claimed.contents:
            await asyncio.to_thread(repo.staging(manifest.commit).begin, manifest, refs)
        yield
        if claimed.contents:
            await asyncio.to_thread(_end, repo, manifest, files, claimed)


@asynccontextmanager
async def owning(repo: RepoCache, file: ManifestFile, *, patience: float) -> AsyncIterator[None]:
    """Hold the claim to the content of `file`. Raises Unavailable after `patience` seconds without it."""
    async with _claimed(repo, lambda: [file], patience, Reporter()):
        yield


@asynccontextmanager
async def _claimed(
    repo: RepoCache, wanted: Callable[[], Sequence[ManifestFile]], patience: float, reporter: Reporter
) -> AsyncIterator[ContentClaim]:
    """Hold the claim to the contents that `wanted` returns, which may become fewer while this waits."""
    began, reported = time.monotonic(), False
    while (claimed := await in_thread(lambda: repo.staged.claim(wanted()), _release)) is None:
        if not reported:
            _note(reporter, repo, f"waiting for {repo.staged.claims.waits_for()}: it downloads {repo.repo}, too")
            reported = True
        if time.monotonic() - began >= patience:
            raise repo.staged.claims.busy(patience)
        reporter.progress(Progress("finding", waiting_for="another download of the same files"))
        await asyncio.sleep(RETRY)
    try:
        if claimed.passed_over is not None:
            text = f"{claimed.passed_over} has given no sign of life for {EXPIRES_AFTER:.0f} s: going on without it"
            _note(reporter, repo, text)
            await asyncio.to_thread(repo.staged.detach)
        async with companions() as start:
            if claimed.lost is not None:
                start(_until_lost(claimed.lost, repo.staged.claims.path))
            yield claimed
    finally:
        await in_the_end(asyncio.to_thread(claimed.release))


def _lacking(repo: RepoCache, files: Sequence[ManifestFile]) -> list[ManifestFile]:
    states = repo.states(files)
    return [file for file in files if states[file.etag] is not BlobState.VERIFIED]


def _end(repo: RepoCache, manifest: Manifest, files: Sequence[ManifestFile], claimed: ContentClaim) -> None:
    """Remove what is staged of the published files, and the mark if all are published."""
    states = repo.states(files)
    published = {etag for etag, state in states.items() if state is BlobState.VERIFIED}
    repo.staged.drop(published & claimed.contents)
    repo.staged.remove(published - claimed.contents)
    if published == states.keys():
        repo.staging(manifest.commit).forget()


def _release(claimed: ContentClaim | None) -> None:
    if claimed is not None:
        claimed.release()
