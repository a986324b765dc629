"""Run a long-lived node: the engine's part in all swarms, the cache, and every transfer.

Methods are commands; they return frozen views. Invariants, to re-check when editing:
1. One snapshot is one transfer, however often and under whatever name it is requested.
2. A command that returned survives kill -9: its record was on disk before.
3. At most `max_active` transfers download; complete transfers serve beside them, without a bound.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import Reference, RepoId, printable, transfer_id
from p2pmodel.core.progress.views import EngineState, LimitsView, RateLimits, ScrubView, TransferView, matching, to_run
from p2pmodel.core.tasks import Version, in_thread
from p2pmodel.errors import NotFound, P2PModelError, Unavailable
from p2pmodel.node.cached_snapshots import CachedSnapshots, record_of
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.job import NodeContext, selected
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.limiter import Limiter, base_limits, limits_note, schedules
from p2pmodel.node.node_folder import take_folder
from p2pmodel.node.reporter import NoteReporter
from p2pmodel.node.rollout.participants import NodeRollouts
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.node.snapshot_watch import SnapshotWatch
from p2pmodel.node.transfer.demands import TransferDemand, Windows
from p2pmodel.node.transfer.managed_transfer import ManagedTransfer
from p2pmodel.node.transfer.transfer_monitor import TransferMonitor
from p2pmodel.node.transfer.waiting_clients import WaitingClients
from p2pmodel.store.scrub import Scrubber
from p2pmodel.store.snapshots.removal import remove_snapshot
from p2pmodel.store.snapshots.snapshot_list import CachedSnapshot
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords

STOP_SECONDS = 5.0
"""Seconds in which all transfers must leave their swarms when the node stops; the others are left to be resumed."""


class Node:
    """`async with` resumes the transfers of the last run, and stops all at the end. `context.engine` must run.

    `folder` keeps the transfers; one node at a time may use it. `note` receives lines for the log.
    """

    def __init__(
        self,
        context: NodeContext,
        settings: Settings,
        folder: Path,
        *,
        note: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.context = context
        self.settings = settings
        self.version = Version()
        self.clients = WaitingClients(self.transfer_settled)
        self.folder = folder
        self.log = note
        self._records = TransferRecords(folder / "transfers")
        self._transfers: dict[str, ManagedTransfer] = {}
        limits = base_limits(settings)
        self._shared = context.shared(limits)
        self._limiter = Limiter(self._shared, limits, *schedules(settings))
        self._max_active = settings.daemon.max_active
        self._watch = SnapshotWatch(self._check_files)
        self._scrubber = Scrubber(context.cache, settings.store, (settings.state_dir or folder) / "scrub", note=note)
        self._cached = CachedSnapshots(context.cache, settings, self._scrubber, self.serve_cached, log=note)
        self._rollouts = NodeRollouts(settings, self.version, self.transfers, self._limiter.view)
        self._companions: list[asyncio.Task[None]] = []
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By transfer: commands about one transfer run one after another."""
        self._background: set[asyncio.Task[None]] = set()
        self._lock = ExitStack()
        self._open = False

    async def __aenter__(self) -> Self:
        with ExitStack() as stack:
            taken = partial(take_folder, self.folder, self.log)
            stack.callback(await in_thread(taken, lambda release: release()))
            records, notes = await asyncio.to_thread(self._records.load)
            self._lock = stack.pop_all()
        for line in notes:
            self.log(line)
        for record in records:
            self._transfers[record.id] = self._managed(record, saved=True)
        await self._check_files()
        self._open = True
        works = self._shared.run(), self._watch.run(), self._scrubber.run(), self._cached.run(), self._rollouts.run()
        following = self._limiter.run(lambda limits: self.log(limits_note(limits)))
        self._companions = [asyncio.create_task(work) for work in (following, *works)]
        self.transfer_settled()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._open = False
        for task in self._companions:
            task.cancel()
        await asyncio.gather(*self._companions, return_exceptions=True)
        with self._lock:
            transfers = list(self._transfers.values())
            for transfer in transfers:
                transfer.close()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await asyncio.gather(*(transfer.stopped() for transfer in transfers), *self._background)
            except TimeoutError:
                self.log(
                    notes.warning(
                        "stop_timeout", f"some transfers did not stop within {STOP_SECONDS:g} s; they are resumed"
                    )
                )

    # -- reading ---------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Before a statement about transfers: compare the files of complete ones with the records, unless that was done
        a moment ago."""
        await self._watch.look()

    def transfers(self) -> tuple[TransferView, ...]:
        """All transfers, oldest first."""
        ordered = sorted(self._transfers.values(), key=lambda each: (each.record.added, each.record.id))
        return tuple(each.view() for each in ordered)

    def transfer(self, ident: str) -> TransferView:
        """One transfer. Raises NotFound."""
        return self._find(ident).view()

    def found(self, ref: Reference) -> ResolvedTarget | None:
        """The snapshot that `ref` means, if one of the transfers has resolved it."""
        ids = [view.id for view in matching(self.transfers(), ref)]
        return next((found for ident in ids if (found := self._transfers[ident].found) is not None), None)

    def monitor(self, ident: str) -> TransferMonitor:
        """The pieces, files and connections of a transfer. Raises NotFound."""
        return self._find(ident).monitor

    def selections(self, ident: str) -> tuple[Selection, ...]:
        """The selections of a transfer: it fetches every file that one of them takes. Raises NotFound."""
        return self._find(ident).record.selections

    @property
    def limits(self) -> LimitsView:
        """The rate limits."""
        return self._limiter.view()

    @property
    def scrub(self) -> ScrubView:
        """The background check of the cache."""
        return self._scrubber.view()

    # -- commands --------------------------------------------------------------------------------------------

    async def start(
        self,
        request: FetchRequest,
        *,
        priority: int | None = None,
        found: ResolvedTarget | None = None,
        prefetch: bool = False,
    ) -> TransferView:
        """Fetch and serve a snapshot. `found` is the resolved target of the request, if known. `prefetch`: a follow
        list asks, not a client: see `follow`.

        Returns the transfer once the target is resolved. A transfer that exists is widened by this request, and
        continues if it was paused or had failed. Raises as `Fetch.find` does.
        """
        notes: list[str] = []
        if found is None:
            found = await Fetch(request, self.settings, NoteReporter(notes.append), context=self.context).find()
        selection = Selection(request.include, request.exclude)
        selected(found.manifest, (selection,))
        ident = transfer_id(found.manifest.repo, found.manifest.commit)
        async with self._turns[ident]:
            if not self._open:
                raise Unavailable("the node is stopping", hint="try again after its restart")
            demand = TransferDemand(selection, found.refs, request.peers, priority, prefetch)
            transfer = self._transfers.get(ident) or await self._new(demand, found)
            await transfer.learn(found)
            await transfer.check_files(found.manifest, asked=True)
            transfer.widen(demand)
            await transfer.save()
        await self._take_names(transfer)
        for line in notes:
            transfer.note(line)
        if not prefetch:
            self.context.readers.used(transfer.record.repo, transfer.record.commit)
        self._rollouts.ask(transfer.record.repo, transfer.record.commit)
        self.transfer_settled()
        return transfer.view()

    def follow(self, windows: Mapping[str, Windows]) -> None:
        """Follow these transfers, and no others. What only follow lists ask for runs while its window is open."""
        changed = [each.follow(windows.get(ident)) for ident, each in self._transfers.items()]
        if any(changed):
            self.transfer_settled()

    async def pause(self, ident: str) -> TransferView:
        """Neither download nor serve it until it is resumed. Raises NotFound."""
        async with self._changing(ident) as transfer:
            transfer.pause()
        return transfer.view()

    async def resume(self, ident: str) -> TransferView:
        """Continue a transfer that is paused or has failed. Raises NotFound."""
        self._find(ident).retry()
        async with self._changing(ident) as transfer:
            transfer.resume()
        return transfer.view()

    async def prioritise(self, ident: str, priority: int) -> TransferView:
        """Run it before transfers of lower priority. Raises NotFound."""
        async with self._changing(ident) as transfer:
            transfer.prioritise(priority)
        return transfer.view()

    def set_engine(self, ident: str, state: EngineState, seconds: float | None = None) -> TransferView:
        """As `ManagedTransfer.set_engine`; forgotten when the node ends. Raises NotFound, Conflict."""
        transfer = self._find(ident)
        transfer.set_engine(state, seconds)
        self._rollouts.update(transfer.view())  # at once: the next report of the engine may follow soon
        return transfer.view()

    def refuse(self, ident: str, error: P2PModelError) -> None:
        """Neither download nor serve it, until it is asked for again. Raises NotFound."""
        self._find(ident).fail("snapshot_refused", error)

    async def cancel(self, ident: str) -> None:
        """Stop and forget it. Its files stay, and fetching it again continues from there. Raises NotFound."""
        self._find(ident)
        async with self._turns[ident]:
            await self._forget(self._find(ident))

    async def remove(self, repo: RepoId, commit: str) -> int:
        """Stop and forget the transfer of a snapshot, if there is one, and remove its files from the cache.

        Returns how many bytes of blobs were removed. Raises NotFound if there is neither transfer nor snapshot.
        """
        ident = transfer_id(repo, commit)
        async with self._turns[ident]:
            transfer = self._transfers.get(ident)
            if transfer is not None:
                await self._forget(transfer)
            try:
                needed = {etag for each in self._transfers.values() if each.record.repo == repo for etag in each.etags}
                return await asyncio.to_thread(remove_snapshot, self.context.cache.repo(repo), commit, needed)
            except NotFound:
                if transfer is None:
                    raise
                return 0

    def limit(self, limits: RateLimits) -> LimitsView:
        """Set the rate limits that apply outside the scheduled windows."""
        self._limiter.change(limits)
        return self._limiter.view()

    # -- settings that change while it runs --------------------------------------------------------------------

    def change_limits(self, settings: Settings) -> None:
        """Apply the rate limits and the schedules of `settings`."""
        self._limiter.change(base_limits(settings))
        self._limiter.reschedule(*schedules(settings))

    def change_max_active(self, settings: Settings) -> None:
        """Apply the number of transfers that download at a time."""
        self._max_active = settings.daemon.max_active
        self.transfer_settled()

    def change_scrub(self, settings: Settings) -> None:
        """Apply the settings of the background check."""
        self._scrubber.change(settings.store)

    # -- events of the transfers (TransferObserver; `log` is the other one) ------------------------------------

    def transfer_changed(self) -> None:
        """The view of a transfer has changed."""
        self.version.advance()

    def transfer_settled(self) -> None:
        """Start the transfers that should run now, and stop the others."""
        self.version.advance()
        if not self._open:
            return
        eligible = [transfer for transfer in self._transfers.values() if transfer.eligible]
        incomplete = (self.clients.seen(each.candidate) for each in eligible if not each.record.complete)
        chosen = to_run(incomplete, self._max_active)
        for transfer in self._transfers.values():
            if transfer.eligible and (transfer.record.complete or transfer.record.id in chosen):
                transfer.start()
            else:
                transfer.stop()
            if transfer.completion_unsaved:
                self._soon(self._save_completion(transfer))

    # -- inside ----------------------------------------------------------------------------------------------

    def _find(self, ident: str) -> ManagedTransfer:
        try:
            return self._transfers[ident]
        except KeyError:
            raise NotFound(
                f"there is no transfer {printable(ident, 20)}", hint="'p2pmodel status' lists them"
            ) from None

    def _managed(self, record: TransferRecord, *, saved: bool) -> ManagedTransfer:
        return ManagedTransfer(record, self.context, self.settings, self._records, self, saved=saved)

    async def _new(self, demand: TransferDemand, found: ResolvedTarget) -> ManagedTransfer:
        record = TransferRecord(
            repo=found.manifest.repo,
            commit=found.manifest.commit,
            revisions=demand.revisions,
            selections=() if demand.prefetch else (demand.selection,),
            peers=demand.peers,
            trackers=found.trackers,
            priority=demand.priority or 0,
            added=time.time(),
        )
        return await self._add(record)

    async def _add(self, record: TransferRecord) -> ManagedTransfer:
        transfer = self._managed(record, saved=False)
        await transfer.save()
        self._transfers[record.id] = transfer
        return transfer

    async def serve_cached(self, found: CachedSnapshot) -> None:
        """Serve a whole snapshot of the cache that is no transfer yet. Its refs stay as they are."""
        ident = transfer_id(found.repo, found.commit)
        async with self._turns[ident]:
            if self._open and ident not in self._transfers:
                await self._add(record_of(found, [each.record for each in self._transfers.values()]))
        self.transfer_settled()

    async def _take_names(self, transfer: ManagedTransfer) -> None:
        """A name points at one commit of its repository: the one that was resolved last."""
        repo = transfer.record.repo
        others = [each for each in self._transfers.values() if each is not transfer and each.record.repo == repo]
        for other in others:
            async with self._turns[other.record.id]:
                is_current = self._transfers.get(other.record.id) is other
                if is_current and other.give_up_names(transfer.record.revisions):
                    await other.save()

    @asynccontextmanager
    async def _changing(self, ident: str) -> AsyncIterator[ManagedTransfer]:
        """Change a transfer within the context: it is saved at the end. Raises NotFound."""
        self._find(ident)
        async with self._turns[ident]:
            transfer = self._find(ident)
            yield transfer
            await transfer.save()
        self.transfer_settled()

    async def _forget(self, transfer: ManagedTransfer) -> None:
        await transfer.forget()
        self._transfers.pop(transfer.record.id, None)
        self.transfer_settled()

    async def _check_files(self) -> None:
        """Compare the files of complete transfers with the records."""
        changed = False
        for transfer in list(self._transfers.values()):
            try:
                changed |= await transfer.check_files()
            except P2PModelError as error:
                self.log(notes.error("check_failed", f"cannot look at the files of {transfer.record.repo}: {error}"))
        if changed:
            self.transfer_settled()

    async def _save_completion(self, transfer: ManagedTransfer) -> None:
        """Record that it is complete: no command does."""
        try:
            async with self._turns[transfer.record.id]:
                if self._transfers.get(transfer.record.id) is transfer:
                    await transfer.save()
        except P2PModelError as error:
            self.log(notes.error("record_failed", f"cannot record a transfer: {error}"))

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
