"""The snapshots that a node finds in its cache when it starts: they are served without being asked for.

Only whole snapshots with a hub's list of files count, so nothing is downloaded for them. Blobs that were not verified
before are hashed first, at the rate of the background check.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.errors import P2PModelError
from p2pmodel.store.cache import HubCache
from p2pmodel.store.scrub import Scrubber
from p2pmodel.store.snapshots.snapshot_list import CachedSnapshot, snapshots
from p2pmodel.store.state.transfer_records import TransferRecord
from p2pmodel.store.state.verified_blobs import BlobState

START_EVERY = 0.2
"""Seconds between the starts of two snapshots: each asks the coordinators, and joins a swarm."""


def record_of(found: CachedSnapshot, others: Iterable[TransferRecord]) -> TransferRecord:
    """The record of a transfer that serves `found`; names of `others` stay theirs."""
    taken = {name for record in others if record.repo == found.repo for name in record.revisions}
    names = tuple(name for name in found.refs if name not in taken)
    return TransferRecord(found.repo, found.commit, names, complete=True, added=time.time())


class CachedSnapshots:
    """Starts the whole snapshots of `cache`, by `start`, as soon as all their blobs are verified."""

    def __init__(
        self,
        cache: HubCache,
        settings: Settings,
        scrubber: Scrubber,
        start: Callable[[CachedSnapshot], Awaitable[None]],
        *,
        log: Callable[[str], None],
    ) -> None:
        self._enabled = settings.daemon.serve_cached and bool(settings.coordinators)
        self._cache = cache
        self._scrubber = scrubber
        self._start = start
        self._log = log

    async def run(self) -> None:
        """Start them all, those without a byte to hash first, unless there is no coordinator. Never raises."""
        if not self._enabled:
            return
        try:
            found = await asyncio.to_thread(self._whole)
        except P2PModelError as error:
            self._failed(error)
            return
        for snapshot, _ in sorted(found, key=lambda each: each[1]):
            try:
                if await self._verified(snapshot):
                    await self._start(snapshot)
                    await asyncio.sleep(START_EVERY)
            except P2PModelError as error:
                self._failed(error)

    def _whole(self) -> list[tuple[CachedSnapshot, int]]:
        """The whole snapshots, and how many bytes of each are to be hashed."""
        return [
            (snapshot, self._unknown(snapshot))
            for snapshot in snapshots(self._cache)
            if not (snapshot.missing or snapshot.doubted)
            and snapshot.manifest.total_size
            and self._cache.repo(snapshot.repo).listed_by_a_hub(snapshot.commit)
        ]

    def _unknown(self, snapshot: CachedSnapshot) -> int:
        files = snapshot.manifest.files
        states = self._cache.repo(snapshot.repo).states(files)
        return sum(file.size for file in files if states[file.etag] is BlobState.UNKNOWN)

    async def _verified(self, snapshot: CachedSnapshot) -> bool:
        repo = self._cache.repo(snapshot.repo)
        await self._scrubber.check(repo, snapshot.manifest.files)
        states = await asyncio.to_thread(repo.states, snapshot.manifest.files)
        return all(state is BlobState.VERIFIED for state in states.values())

    def _failed(self, error: P2PModelError) -> None:
        self._log(notes.warning("cached_not_served", f"cannot serve what is in the cache: {error}"))
