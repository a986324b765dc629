"""Follow the lists of a node: look up their commits, and let their transfers run in the windows.

Invariants, to re-check when editing:
1. Outside its window a list is neither looked up nor downloaded. What clients ask for does not wait for it.
2. One failure concerns one revision: it is noted, and tried again after a pause. `run` does not end by it.
3. A transfer is cancelled only if nothing but a follow list ever asked for it, and no list leads to it any more. Its
   files stay for the next commit.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from p2pmodel.config.sections.daemon import FollowSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import Reference, RepoId, reference
from p2pmodel.core.progress.views import FollowedSnapshot, FollowView, TransferView
from p2pmodel.core.tasks import Version, companions
from p2pmodel.errors import NotFound, P2PModelError
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.follow.followed_list import FollowedList, catalog_names, matching
from p2pmodel.node.node import Node
from p2pmodel.node.reporter import NoteReporter
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.os_errors import translate
from p2pmodel.store.state.revisions import FollowedCommit, FollowedCommits

CHECK_EVERY = 10.0
"""Seconds between two reads of the clock: it may be set, and a suspended machine sleeps longer."""
SHORTEST_PAUSE = 0.05

Find = Callable[[FetchRequest], Awaitable[ResolvedTarget]]


class Follower:
    """The follow lists of `node`. `folder` keeps their commits; `now` is the time in seconds since 1970, `dice` a
    random number below 1, `find` resolves a request."""

    def __init__(
        self,
        node: Node,
        *,
        now: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
        find: Find | None = None,
    ) -> None:
        self._node = node
        self._now = now
        self._dice = dice
        self._find = find or self._resolve
        self._records = FollowedCommits(node.folder)
        self._known: dict[str, tuple[FollowedCommit, ...]] = {}
        self._lists = [FollowedList(each) for each in node.settings.follow]
        self._left: set[str] = set()
        """Transfers that a list has led to, and leads to no more."""
        self._version = Version()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with companions() as start:
            start(self._keep_windows())
            while True:
                version = self._version.value
                await self.look()
                await self._version.beyond(version, timeout=self._pause([each.next_look for each in self._open()]))

    async def restore(self) -> None:
        """Take up the commits of the last run, before anything is removed for space."""
        self._known = await asyncio.to_thread(self._records.load)
        self._lists = [FollowedList(each.settings, self._known.get(each.settings.name, ())) for each in self._lists]
        names = {each.settings.name for each in self._lists}
        self._leave(found for name, found in self._known.items() if name not in names)
        self.apply()

    def change(self, settings: Settings) -> None:
        """Apply the lists of `settings`: new ones are looked up at once, the others stay as they are."""
        before = {each.settings: each for each in self._lists}
        commits = {each.settings.name: each.commits for each in self._lists}
        self._lists = [before.get(each) or FollowedList(each, commits.get(each.name, ())) for each in settings.follow]
        self._leave(each.commits for each in before.values() if each not in self._lists)
        self._version.advance()

    def views(self) -> tuple[FollowView, ...]:
        """The lists as they are now."""
        transfers = {view.id: view for view in self._node.transfers()}
        now = self._now()
        return tuple(_view(each, transfers, now) for each in self._lists)

    def apply(self) -> None:
        """Let those transfers run that have an open window."""
        now = self._now()
        windows: defaultdict[str, dict[Selection, bool]] = defaultdict(dict)
        for each in self._lists:
            is_open = each.observe(now, self._dice())
            for commit in each.commits:
                of_transfer = windows[commit.transfer]
                of_transfer[each.selection] = of_transfer.get(each.selection, False) or is_open
        self._node.follow(windows)

    async def look(self) -> None:
        """Look up the lists that are due, and start what they lead to."""
        self.apply()
        for each in [each for each in self._lists if each.is_due(self._now())]:
            await self._look_up(each)
            self.apply()
        await self._cancel_left()
        await self._save()

    async def _keep_windows(self) -> None:
        while True:
            version = self._version.value
            self.apply()
            now = self._now()
            changes = [each.hours.next_change(now) for each in self._lists]
            await self._version.beyond(version, timeout=self._pause([each for each in changes if each is not None]))

    def _open(self) -> list[FollowedList]:
        now = self._now()
        return [each for each in self._lists if each.hours.is_open(now)]

    def _pause(self, events: Iterable[float]) -> float:
        soonest = min((event - self._now() for event in events), default=CHECK_EVERY)
        return min(CHECK_EVERY, max(SHORTEST_PAUSE, soonest))

    async def _look_up(self, each: FollowedList) -> None:
        found: list[FollowedCommit] = []
        failures: list[str] = []
        try:
            references = await self._references(each.settings)
        except (OSError, P2PModelError) as error:
            references, failures = [], [translate(error).what]
        for ref in references:
            try:
                commit, failed = await self._start(each, ref)
                found.append(commit)
                failures += failed
            except (OSError, P2PModelError) as error:
                failures.append(translate(error).what)
        if each not in self._lists:
            return  # the settings were reloaded meanwhile
        before = each.error
        if failures:
            left = each.failed(self._now(), found, failures[0])
        else:
            left = each.succeeded(self._now(), found, self._dice())
        self._left |= left
        if each.error and each.error != before:
            pause = each.next_look - self._now()
            text = f"cannot follow {each.settings.name}: {each.error}; it is tried again in {pause:.0f} s"
            keys = {"repo": each.settings.repo, "revision": each.settings.revision}
            self._node.log(notes.warning("follow_failed", text, **keys))

    async def _references(self, settings: FollowSettings) -> list[Reference]:
        if not settings.is_pattern:
            return [reference(RepoId(settings.repo), settings.revision)]
        swarm = self._node.settings.swarm
        return matching(settings, await catalog_names(configured(self._node.settings), swarm.coordinator_timeout))

    async def _start(self, each: FollowedList, ref: Reference) -> tuple[FollowedCommit, list[str]]:
        """Start or continue the transfer of `ref`. Returns its commit, and why the transfer had failed before."""
        request = FetchRequest(ref, each.settings.include, each.settings.exclude)
        found = await self._find(request)
        commit = FollowedCommit(found.manifest.repo, ref.revision, found.manifest.commit)
        if not each.hours.is_open(self._now()):
            return commit, []  # it has closed meanwhile
        is_new = commit not in each.commits
        before = [view for view in self._node.transfers() if view.id == commit.transfer]
        await self._node.start(request, priority=each.settings.priority, found=found, prefetch=True)
        if is_new:
            text = f"{ref} is {commit.commit}: downloading what is missing"
            self._node.log(notes.info("follow_found", text, repo=str(commit.repo), commit=commit.commit))
        return commit, [view.error.message for view in before if view.error is not None]

    async def _resolve(self, request: FetchRequest) -> ResolvedTarget:
        heard = NoteReporter(lambda line: self._node.log(notes.debug("follow_look", line)))
        return await Fetch(request, self._node.settings, heard, context=self._node.context).find()

    def _leave(self, commits: Iterable[tuple[FollowedCommit, ...]]) -> None:
        self._left |= {each.transfer for found in commits for each in found}

    async def _cancel_left(self) -> None:
        """Invariant 3."""
        wanted = {commit.transfer for each in self._lists for commit in each.commits}
        while self._left:
            ident = self._left.pop()
            with suppress(NotFound):
                if ident not in wanted and not self._node.selections(ident):
                    await self._node.cancel(ident)

    async def _save(self) -> None:
        by_list = {each.settings.name: each.commits for each in self._lists if each.commits}
        if by_list == self._known:
            return
        try:
            await asyncio.to_thread(self._records.save, by_list)
            self._known = by_list
        except (OSError, P2PModelError) as error:
            text = f"cannot record the commits of the follow lists: {translate(error)}"
            self._node.log(notes.error("follow_record_failed", text))


def _view(each: FollowedList, transfers: dict[str, TransferView], now: float) -> FollowView:
    settings = each.settings
    snapshots = tuple(_snapshot(commit, transfers.get(commit.transfer)) for commit in each.commits)
    failed = [view.error.message for commit in each.commits if (view := transfers.get(commit.transfer)) and view.error]
    return FollowView(
        repo=settings.repo,
        revision=settings.revision,
        include=settings.include,
        exclude=settings.exclude,
        window=settings.window or "",
        zone=settings.zone or "",
        is_open=each.hours.is_open(now),
        changes=each.hours.next_change(now),
        snapshots=snapshots,
        checked=each.checked,
        next_check=each.next_look or None,
        error=each.error or next(iter(failed), ""),
    )


def _snapshot(commit: FollowedCommit, view: TransferView | None) -> FollowedSnapshot:
    known = str(commit.repo), commit.revision, commit.commit, commit.transfer
    if view is None:
        return FollowedSnapshot(*known, "none")
    is_complete = view.complete and not view.prefetch
    return FollowedSnapshot(*known, view.state, is_complete, view.progress.done, view.progress.total or view.size)
