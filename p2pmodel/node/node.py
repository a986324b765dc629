"""A long-lived node: it owns the engine's part in all swarms, the cache, and every transfer.

Methods are commands; what they return are frozen views. Invariants, to re-check when editing:
1. One snapshot is one transfer, whoever asks for it and under whatever name.
2. A command that returned survives kill -9: its record was on the disk before.
3. At most `max_active` transfers download; those that are complete serve beside them, as many as there are.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from p2pmodel.config.schedules import Schedule
from p2pmodel.config.settings import Settings
from p2pmodel.core.connections import PeerConnection
from p2pmodel.core.manifest import Selection
from p2pmodel.core.names import Reference, RepoId, printable
from p2pmodel.core.progress import Pieces
from p2pmodel.core.version import Version
from p2pmodel.core.views import LimitsView, RateLimits, TransferView, named, those_to_run
from p2pmodel.errors import LocalResource, NotFound, P2PModelError, Unavailable
from p2pmodel.node.fetch.fetch import Fetch, FetchRequest, NodeContext, selected
from p2pmodel.node.limiter import Limiter
from p2pmodel.node.managed_transfer import ManagedTransfer
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.resolve import ResolvedTarget
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.listing import is_visible
from p2pmodel.store.locks import take_lock
from p2pmodel.store.removal import remove_snapshot
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords, transfer_id

T = TypeVar("T")

STOP_SECONDS = 5.0
"""In which all transfers have left their swarms at the end, or are left to be resumed."""


class Node:
    """`async with` takes up the transfers of the last run, and stops all at the end. `home.engine` must run.

    `folder` keeps the transfers; one node at a time may use it. `note` gets lines for the log.
    """

    def __init__(
        self,
        home: NodeContext,
        settings: Settings,
        folder: Path,
        *,
        note: Callable[[str], None] = lambda _line: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.home = home
        self.settings = settings
        self.version = Version()
        self.folder = folder
        self._note = note
        self._now = now
        self._records = TransferRecords(folder / "transfers")
        self._kept: dict[str, ManagedTransfer] = {}
        limits = RateLimits(settings.swarm.upload_limit, settings.swarm.download_limit)
        self._shared = home.shared(limits)
        self._limiter = Limiter(
            self._shared.change,
            limits,
            Schedule.parse(settings.daemon.upload_schedule),
            Schedule.parse(settings.daemon.download_schedule),
        )
        self._limiting: list[asyncio.Task[None]] = []
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By transfer: commands about one take turns."""
        self._background: set[asyncio.Task[None]] = set()
        self._saved: dict[str, TransferRecord] = {}
        self._lock = ExitStack()
        self._open = False

    async def __aenter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._take_lock())
            records, notes = await asyncio.to_thread(self._records.load)
            self._lock = stack.pop_all()
        for line in notes:
            self._note(line)
        for record in records:
            self._keep(record)
            self._saved[record.id] = record
        self._open = True
        works = self._limiter.run(self._limits_changed), self._shared.run()
        self._limiting = [asyncio.create_task(work) for work in works]
        self._reconcile()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._open = False
        for task in self._limiting:
            task.cancel()
        await asyncio.gather(*self._limiting, return_exceptions=True)
        with self._lock:
            kept = list(self._kept.values())
            for each in kept:
                each.close()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await asyncio.gather(*(each.stopped() for each in kept), *self._background)
            except TimeoutError:
                self._note(f"some transfers did not stop within {STOP_SECONDS:g} s; they are resumed")

    # -- reading ---------------------------------------------------------------------------------------------

    def transfers(self) -> tuple[TransferView, ...]:
        """All transfers, oldest first."""
        return tuple(kept.view() for kept in sorted(self._kept.values(), key=lambda k: (k.record.added, k.record.id)))

    def transfer(self, ident: str) -> TransferView:
        """One of them. Raises NotFound."""
        return self._find(ident).view()

    def found(self, ref: Reference) -> ResolvedTarget | None:
        """What is known of the snapshot that `ref` means among the transfers."""
        ids = [view.id for view in named(self.transfers(), ref)]
        return next((found for ident in ids if (found := self._kept[ident].found) is not None), None)

    def pieces(self, ident: str) -> Pieces:
        """Which pieces of a transfer are here. Raises NotFound."""
        return self._find(ident).pieces()

    async def connections(self, ident: str) -> tuple[PeerConnection, ...]:
        """Whom a transfer exchanges bytes with. Raises NotFound."""
        return await self._find(ident).connections()

    def selections(self, ident: str) -> tuple[Selection, ...]:
        """What was asked for of a snapshot: what any of them takes. Raises NotFound."""
        return self._find(ident).record.selections

    @property
    def limits(self) -> LimitsView:
        """What is exchanged with peers at most."""
        return self._limiter.view()

    # -- commands --------------------------------------------------------------------------------------------

    async def start(
        self, request: FetchRequest, *, priority: int | None = None, found: ResolvedTarget | None = None
    ) -> TransferView:
        """Have a snapshot brought here and served. `found` is what the request's target is, if that is known.

        Returns once it is known which snapshot that is, with the transfer, which may be there already: then it gets
        what this request adds, and goes on if it was paused or had failed. Raises as `Fetch.find` does.
        """
        notes: list[str] = []
        if found is None:
            found = await Fetch(request, self.settings, Reporter(note=notes.append), home=self.home).find()
        selected(found.manifest, (Selection(request.include, request.exclude),))
        ident = transfer_id(found.manifest.repo, found.manifest.commit)
        async with self._turns[ident]:
            if not self._open:
                raise Unavailable("the node is stopping", hint="try again once it has started anew")
            kept = self._kept.get(ident) or await self._new(request, found)
            await self._learn(kept, found)
            await self._check(kept, found)
            await self._widen(kept, request, found, priority)
        await self._take_names(kept)
        for line in notes:
            kept.say(line)
        self._reconcile()
        return kept.view()

    async def pause(self, ident: str) -> TransferView:
        """Neither download nor serve it until it is resumed. Raises NotFound."""
        return await self._change(ident, paused=True)

    async def resume(self, ident: str) -> TransferView:
        """Go on with what was paused or has failed. Raises NotFound."""
        self._find(ident).retry()
        return await self._change(ident, paused=False)

    async def prioritise(self, ident: str, priority: int) -> TransferView:
        """Let it go before those of lower priority. Raises NotFound."""
        return await self._change(ident, priority=priority)

    def engine_is(self, ident: str, *, ready: bool, seconds: float | None = None) -> TransferView:
        """What an inference engine says of itself, as in `ManagedTransfer`; forgotten when the node ends.
        Raises NotFound,
        Conflict."""
        kept = self._find(ident)
        kept.engine_is(ready=ready, seconds=seconds)
        return kept.view()

    async def cancel(self, ident: str) -> None:
        """Stop and forget it. What is here of it stays, and fetching it again goes on from there. Raises NotFound."""
        self._find(ident)
        async with self._turns[ident]:
            await self._forget(self._find(ident))

    async def remove(self, repo: RepoId, commit: str) -> int:
        """Stop and forget the transfer of a snapshot, if there is one, and take its files out of the cache.

        Returns how many bytes of blobs went. Raises NotFound if there is neither transfer nor snapshot.
        """
        ident = transfer_id(repo, commit)
        async with self._turns[ident]:
            kept = self._kept.get(ident)
            if kept is not None:
                await self._forget(kept)
            try:
                needed = {etag for each in self._kept.values() if each.record.repo == repo for etag in each.etags}
                return await asyncio.to_thread(remove_snapshot, self.home.cache.repo(repo), commit, needed)
            except NotFound:
                if kept is None:
                    raise
                return 0

    def limit(self, limits: RateLimits) -> LimitsView:
        """From now on exchange at most that much with peers, where no window of the day says otherwise."""
        self._limiter.change(limits)
        return self._limiter.view()

    # -- inside ----------------------------------------------------------------------------------------------

    @translated()
    def _take_lock(self) -> Callable[[], None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(self.folder / "lock")
        if lock is None:
            raise LocalResource(
                f"another daemon keeps its transfers in {self.folder}", hint="stop it, or set another state_dir"
            )
        return lock.release

    def _find(self, ident: str) -> ManagedTransfer:
        try:
            return self._kept[ident]
        except KeyError:
            raise NotFound(
                f"there is no transfer {printable(ident, 20)}", hint="'p2pmodel status' lists them"
            ) from None

    def _repo(self, kept: ManagedTransfer) -> RepoCache:
        return self.home.cache.repo(kept.record.repo)

    def _keep(self, record: TransferRecord) -> ManagedTransfer:
        kept = ManagedTransfer(
            record,
            self.home,
            self.settings,
            self._records,
            changed=self.version.advance,
            settled=self._reconcile,
            note=self._note,
        )
        self._kept[record.id] = kept
        return kept

    async def _new(self, request: FetchRequest, found: ResolvedTarget) -> ManagedTransfer:
        """The transfer, recorded."""
        record = TransferRecord(
            repo=found.manifest.repo,
            commit=found.manifest.commit,
            revisions=found.refs,
            selections=(Selection(request.include, request.exclude),),
            peers=request.peers,
            added=self._now(),
        )
        await asyncio.to_thread(self._records.save, record)
        self._saved[record.id] = record
        return self._keep(record)

    async def _learn(self, kept: ManagedTransfer, found: ResolvedTarget) -> None:
        """Tell the transfer what was found, if it knows less."""
        if not kept.has_torrent:
            if found.metainfo is not None:
                await asyncio.to_thread(self._records.save_torrent, kept.record.id, found.metainfo.raw)
            kept.know(found)

    async def _check(self, kept: ManagedTransfer, found: ResolvedTarget) -> None:
        """A transfer that is complete is not, if somebody took some of its files away."""
        repo, files = self._repo(kept), found.manifest.select_any(kept.record.selections)
        if kept.record.complete and not await asyncio.to_thread(is_visible, repo, kept.record.commit, files):
            kept.record = replace(kept.record, complete=False)
            kept.stop()

    async def _widen(
        self, kept: ManagedTransfer, request: FetchRequest, found: ResolvedTarget, priority: int | None
    ) -> None:
        """Let the transfer bring what this request adds to it, and go on."""
        before, selection = kept.record, Selection(request.include, request.exclude)
        all_of_it = Selection() in before.selections
        kept.record = replace(
            before,
            revisions=_joined(before.revisions, found.refs),
            selections=before.selections if all_of_it else _joined(before.selections, (selection,)),
            peers=_joined(before.peers, request.peers),
            priority=before.priority if priority is None else priority,
            paused=False,
        )
        kept.retry()
        if (kept.record.revisions, kept.record.selections) != (before.revisions, before.selections):
            # What runs was started without it.
            kept.record = replace(kept.record, complete=False)
            kept.stop()
        await self._save(kept)

    async def _take_names(self, kept: ManagedTransfer) -> None:
        """A name points at one commit of its repository: the one that was found last."""
        others = [each for each in self._kept.values() if each is not kept and each.record.repo == kept.record.repo]
        for other in others:
            async with self._turns[other.record.id]:
                left = tuple(name for name in other.record.revisions if name not in kept.record.revisions)
                if left == other.record.revisions or self._kept.get(other.record.id) is not other:
                    continue
                other.record = replace(other.record, revisions=left)
                if not other.record.complete:
                    other.stop()  # it would let the name point at its own commit once it is complete
                await self._save(other)

    async def _change(self, ident: str, **fields: Any) -> TransferView:
        self._find(ident)
        async with self._turns[ident]:
            kept = self._find(ident)
            kept.record = replace(kept.record, **fields)
            await self._save(kept)
        self._reconcile()
        return kept.view()

    async def _forget(self, kept: ManagedTransfer) -> None:
        kept.record = replace(kept.record, paused=True)
        kept.close()
        await kept.stopped()
        await asyncio.to_thread(self._records.forget, kept.record.id)
        self._saved.pop(kept.record.id, None)
        self._kept.pop(kept.record.id, None)
        self._reconcile()

    async def _save(self, kept: ManagedTransfer) -> None:
        record = kept.record
        if self._saved.get(record.id) != record:
            await asyncio.to_thread(self._records.save, record)
            self._saved[record.id] = record

    async def _save_complete(self, kept: ManagedTransfer) -> None:
        """Record that it is complete, which nobody commanded."""
        try:
            async with self._turns[kept.record.id]:
                if self._kept.get(kept.record.id) is kept:
                    await self._save(kept)
        except P2PModelError as error:
            self._note(f"cannot record a transfer: {error}")

    def _reconcile(self) -> None:
        """Let run what should, and stop what should not."""
        self.version.advance()
        if not self._open:
            return
        eligible = [kept for kept in self._kept.values() if kept.eligible]
        chosen = those_to_run(
            (kept.candidate for kept in eligible if not kept.record.complete), self.settings.daemon.max_active
        )
        for kept in self._kept.values():
            if kept.eligible and (kept.record.complete or kept.record.id in chosen):
                kept.start()
            else:
                kept.stop()
            if kept.record.complete and not self._saved[kept.record.id].complete:
                self._soon(self._save_complete(kept))

    def _limits_changed(self, limits: LimitsView) -> None:
        self._note(f"limits by the time of day: {limits.upload_now} B/s up, {limits.download_now} B/s down (0: none)")

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _joined(before: tuple[T, ...], more: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*before, *more)))
