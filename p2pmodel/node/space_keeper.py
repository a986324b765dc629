"""Keeps a cache within its budget: looks at the disk, the readers, the transfers and the swarm, and removes what
`store/space/plan` lets go.

A whole snapshot that this node serves leaves its swarm before it is removed. Then the coordinators are asked again: of
two nodes that leave at the same time at least one finds no other copy, and goes on serving its own.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.cluster_views import SwarmViews
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.core import notes
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.views import SpaceView, TransferView
from p2pmodel.core.sizes import human
from p2pmodel.errors import P2PModelError
from p2pmodel.node.node import Node
from p2pmodel.node.node_folder import node_folder
from p2pmodel.node.snapshot.evidence.voucher import vouched_commits
from p2pmodel.node.snapshot_readers import SnapshotKey, SnapshotReaders
from p2pmodel.os_errors import translate, translated
from p2pmodel.store.cache import HubCache
from p2pmodel.store.process_locks import LockSearch
from p2pmodel.store.snapshots.removal import remove_snapshot
from p2pmodel.store.snapshots.snapshot_list import CachedSnapshot, snapshots
from p2pmodel.store.space.plan import (
    HeldSnapshot,
    PlannedRemoval,
    SnapshotFacts,
    SpacePlan,
    SpaceRules,
    planned,
    protection,
)
from p2pmodel.store.space.readers import open_inodes, serving_processes
from p2pmodel.store.space.usage import SnapshotUsage, measured, note_use
from p2pmodel.store.staging import unfinished_commits
from p2pmodel.store.state.revisions import FollowedCommits

LOOK_EVERY = 60.0
"""Seconds between two looks of the daemon at its cache."""

COUNTED_FOR = 600.0
"""Seconds for which a tracker may count a process of this node that was killed. Until then one copy of each snapshot
counts as its own."""

_DAY = 86400.0


def space_rules(settings: Settings) -> SpaceRules:
    """The rules of the settings."""
    store = settings.store
    low = int(store.budget * store.low_mark) if store.budget is not None else 0
    return SpaceRules(store.budget, low, store.unused_days * _DAY)


@dataclass(frozen=True, slots=True)
class SpaceSurvey:
    """The snapshots of a cache with what protects each, and the bytes on disk, with those that running downloads will
    add."""

    held: tuple[HeldSnapshot, ...]
    total: int


class SpaceSurveyor:
    """Finds out what `SpaceKeeper` decides by.

    Open files of the processes `own` do not count, because their transfers are known: this one, or the daemon's.
    `settled`: the time on `clock` from which no earlier process of this node is counted as a copy any more.
    """

    def __init__(
        self,
        cache: HubCache,
        settings: Settings,
        own: Collection[int] = (),
        *,
        settled: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settled = settled
        self._clock = clock
        self._cache = cache
        self._settings = settings
        self._own = frozenset(own) or frozenset((os.getpid(),))

    async def survey(self, transfers: Iterable[TransferView], readers: SnapshotReaders) -> SpaceSurvey:
        """Look once. `transfers` are those of the node on this cache."""
        views = {(RepoId(view.repo), view.commit): view for view in transfers}
        copies = await self.copies(views.values())
        for repo, commit in readers.take_used():
            await asyncio.to_thread(note_use, self._cache.repo(repo), commit)
        return await asyncio.to_thread(self._look, views, readers, copies)

    async def copies(self, transfers: Iterable[TransferView]) -> dict[SnapshotKey, int]:
        """Whole copies of each snapshot on other nodes, as the coordinators count them now."""
        earlier = int(self._clock() < self._settled)
        serving = {(view.repo, view.commit) for view in transfers if view.complete and view.state == "seeding"}
        views = SwarmViews(configured(self._settings), self._settings.swarm.coordinator_timeout)
        return {
            (RepoId(view.repo), view.commit): max(0, view.seeders - earlier - ((view.repo, view.commit) in serving))
            for view in await views.look()
        }

    @translated()
    def _look(
        self, views: dict[SnapshotKey, TransferView], readers: SnapshotReaders, copies: dict[SnapshotKey, int]
    ) -> SpaceSurvey:
        usage = measured(self._cache)
        inodes = open_inodes(self._own)
        served = {each.repo: bool(self._serving(each.repo)) for each in usage.snapshots}
        held, followed = [], frozenset() if views else _followed(self._settings)
        for each in usage.snapshots:
            facts = self._facts(each, views, copies, inodes)
            facts = replace(facts, served=served[each.repo], read=facts.read or readers.reads(each.repo, each.commit))
            facts = replace(facts, followed=facts.followed or (each.repo, each.commit) in followed)
            used = time.time() if facts.read else each.used
            if facts.read:
                note_use(self._cache.repo(each.repo), each.commit)
            held.append(HeldSnapshot(each.repo, each.commit, each.contents, used, protection(facts)))
        coming = sum(
            max(0, view.progress.total - view.progress.done)
            for view in views.values()
            if not view.complete and view.state != "paused"
        )
        return SpaceSurvey(tuple(held), usage.total + coming)

    def _facts(
        self,
        usage: SnapshotUsage,
        views: dict[SnapshotKey, TransferView],
        copies: dict[SnapshotKey, int],
        inodes: frozenset[int],
    ) -> SnapshotFacts:
        repo, key = self._cache.repo(usage.repo), (usage.repo, usage.commit)
        view = views.get(key)
        manifest = repo.manifest(usage.commit)
        known = vouched_commits(self._settings).of(*key)
        return SnapshotFacts(
            pinned=usage.pinned,
            moved=bool(usage.moved_to),
            followed=view is not None and view.followed,
            loading=usage.commit in unfinished_commits(repo.private) or (view is not None and not view.complete),
            read=bool(usage.inodes & inodes) or (view is not None and view.engine_ready),
            copies=copies.get(key),
            in_swarm=bool(self._settings.coordinators),
            on_mirror=known is not None and manifest is not None and known.proven and known.fits(manifest),
        )

    def _serving(self, repo: RepoId) -> list[str]:
        return serving_processes(self._cache.repo(repo), self._own)


class SpaceKeeper:
    """Removes snapshots of `cache` by the rules of `settings`. `node` runs on it; None: no daemon does."""

    def __init__(
        self,
        cache: HubCache,
        settings: Settings,
        node: Node | None = None,
        *,
        log: Callable[[str], None],
        surveyor: SpaceSurveyor | None = None,
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._node = node
        self._log = log
        self._readers = node.context.readers if node else SnapshotReaders()
        settled = time.monotonic() + COUNTED_FOR if node else math.inf
        self._surveyor = surveyor or SpaceSurveyor(cache, settings, settled=settled)
        self._view = SpaceView()

    async def run(self) -> None:
        """Keep the budget until cancelled, if there is one."""
        while True:
            if space_rules(self._settings) != SpaceRules():
                try:
                    await self.prune(space_rules(self._settings))
                except (OSError, P2PModelError) as error:
                    text = f"cannot keep the cache within its budget: {translate(error)}"
                    self._log(notes.warning("space_failed", text))
            await asyncio.sleep(LOOK_EVERY)

    def change(self, settings: Settings) -> None:
        """Apply the rules of `settings` from the next look on."""
        self._settings = self._settings.model_copy(update={"store": settings.store})

    @property
    def view(self) -> SpaceView:
        """The space of the cache, and the removals since the start."""
        return replace(self._view, budget=self._settings.store.budget)

    async def prune(self, rules: SpaceRules) -> tuple[PlannedRemoval, ...]:
        """Remove what the plan lets go; returns what is gone, with the bytes that this freed."""
        plan = await self.plan(rules)
        gone = []
        for leaving in plan.leaving:
            freed = await self._remove(leaving.snapshot)
            if freed is not None:
                gone.append(replace(leaving, freed=freed))
                self._view = replace(self._view, removed=self._view.removed + 1, freed=self._view.freed + freed)
                self._log(_removed(leaving, freed))
        if plan.over and not self._view.over:
            text = f"the cache is {human(plan.over)} above its budget, and the other snapshots must stay"
            self._log(
                notes.warning("over_budget", f"{text}: 'p2pmodel cache prune --dry-run' says why", over=plan.over)
            )
        self._view = replace(self._view, used=plan.before - sum(each.freed for each in gone), over=plan.over)
        return tuple(gone)

    async def plan(self, rules: SpaceRules) -> SpacePlan:
        """What `prune` would remove now."""
        survey = await self._survey()
        return planned(survey.held, survey.total, rules, time.time())

    async def _survey(self) -> SpaceSurvey:
        return await self._surveyor.survey(self._transfers(), self._readers)

    def _transfers(self) -> tuple[TransferView, ...]:
        return self._node.transfers() if self._node else ()

    async def _remove(self, held: HeldSnapshot) -> int | None:
        """The bytes that this freed; None if it stays: something has begun to protect it."""
        repo, commit = self._cache.repo(held.repo), held.commit
        view = next((v for v in self._transfers() if (RepoId(v.repo), v.commit) == (held.repo, commit)), None)
        found = await asyncio.to_thread(self._whole, held)
        if self._node is None or view is None or found is None:
            return await self._remove_unprotected(held, withdrawn=False)
        await self._node.cancel(view.id)
        freed = None
        try:
            freed = await self._remove_unprotected(held, withdrawn=True)
        finally:
            if freed is None and await asyncio.to_thread(repo.has_snapshot, commit):
                await self._node.serve_cached(found)
                if view.state == "paused":
                    await self._node.pause(view.id)
        return freed

    async def _remove_unprotected(self, held: HeldSnapshot, *, withdrawn: bool) -> int | None:
        """Look again and remove it if it may still go. `withdrawn`: this node has stopped to serve it."""
        repo, commit = self._cache.repo(held.repo), held.commit
        now = {(each.repo, each.commit): each.kept for each in (await self._survey()).held}
        if now.get((held.repo, commit), "gone") or self._readers.reads(held.repo, commit):
            return None
        search = LockSearch(await asyncio.to_thread(repo.staging(commit).lock_path))
        with translated():
            lock = search.take()
        if lock is None:
            return None  # another process works on it
        try:
            if withdrawn and any((RepoId(v.repo), v.commit) == (held.repo, commit) for v in self._transfers()):
                return None  # a client has asked for it meanwhile
            if self._node is not None:
                return await self._node.remove(held.repo, commit)
            return await asyncio.to_thread(remove_snapshot, repo, commit)
        finally:
            await asyncio.to_thread(lock.release)

    def _whole(self, held: HeldSnapshot) -> CachedSnapshot | None:
        """The snapshot as the node serves it; None if only a part of its files is here: that is no copy."""
        found = (each for each in snapshots(self._cache) if (each.repo, each.commit) == (held.repo, held.commit))
        return next((each for each in found if not each.missing), None)


def _followed(settings: Settings) -> frozenset[SnapshotKey]:
    """The snapshots that the follow lists of a daemon have led to, for where none runs."""
    if settings.state_dir is None or not settings.follow:
        return frozenset()
    recorded = FollowedCommits(node_folder(settings.state_dir)).load()
    found = (each for name in {each.name for each in settings.follow} for each in recorded.get(name, ()))
    return frozenset((each.repo, each.commit) for each in found)


def _removed(leaving: PlannedRemoval, freed: int) -> notes.Note:
    held = leaving.snapshot
    why = "it was not used for long" if leaving.expired else "the cache was above its budget"
    text = f"removed {held.repo}@{held.commit} ({human(freed)}): {why}"
    return notes.info("snapshot_removed", text, repo=str(held.repo), commit=held.commit, freed=freed)
