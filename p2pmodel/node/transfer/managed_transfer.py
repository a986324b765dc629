"""Run one snapshot of a long-lived node: fetch it, then serve it, until it is stopped.

The transfer alone changes its state and its record: by its task and by the calls below, all on the event loop. Readers
get frozen views. The task is a `Fetch`, the same that a command embeds. A stop at any moment leaves the same as a kill:
the next start resumes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest, Selection
from p2pmodel.core.progress.progress import Progress, Timings
from p2pmodel.core.progress.views import SERVING, Candidate, EngineState, State, TransferError, TransferView
from p2pmodel.core.tasks import companions
from p2pmodel.errors import Contradicted, P2PModelError
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.job import NodeContext
from p2pmodel.node.fetch.request import FetchResult
from p2pmodel.node.seed.offer import keep_offered, publishes_at, torrent_to_offer
from p2pmodel.node.snapshot.doubt import Consequence, SnapshotDoubt, compared, removed_by_another
from p2pmodel.node.snapshot.evidence.voucher import CACHE
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.node.transfer.demands import (
    TransferDemand,
    Windows,
    completed,
    request_of,
    resumed,
    waits,
    wanted,
    widened,
)
from p2pmodel.node.transfer.engine_reports import EngineReports, engine_note, incomplete
from p2pmodel.node.transfer.retries import TransferRetry
from p2pmodel.node.transfer.saved_torrent import is_refused, saved_torrent
from p2pmodel.node.transfer.transfer_monitor import TransferMonitor, TransferObserver
from p2pmodel.os_errors import translate
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords


class ManagedTransfer:
    """One transfer. `saved`: `record` is on disk already."""

    def __init__(
        self,
        record: TransferRecord,
        context: NodeContext,
        settings: Settings,
        records: TransferRecords,
        observer: TransferObserver,
        *,
        saved: bool = False,
    ) -> None:
        self._record = record
        self._saved = record if saved else None
        self._error: P2PModelError | None = None
        self._context = context
        self._settings = settings
        self._records = records
        self._observer = observer
        self._monitor = TransferMonitor(str(record.repo), observer)
        self._repo = context.cache.repo(record.repo)
        self._found: ResolvedTarget | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._closed = False
        self._windows: Windows | None = None
        """The windows of the follow lists that have this transfer; None: no list has it."""
        self._fetching: tuple[Selection, ...] = ()
        """The files that the last fetch was started for."""
        self._next_try = TransferRetry(self._repo, self._try_again)
        self._rests = False
        """Whether its task has ended well: it is complete, and there is no swarm to serve it to."""
        self._doubt = SnapshotDoubt()
        self._has_names = record.complete
        """Whether its refs were pointed at it. By now they may point at another commit."""
        self._completion: Progress | None = None
        self._timings: Timings | None = None
        self._engine = EngineReports(self._observer.transfer_changed)

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def record(self) -> TransferRecord:
        """The requested files, and whether they are complete."""
        return self._record

    @property
    def eligible(self) -> bool:
        """Whether it may run."""
        return not (self._record.paused or self._error or self._rests) and bool(self._wanted)

    @property
    def complete(self) -> bool:
        """Whether all requested files are here, and none is in doubt."""
        return self._record.complete and self._doubt.check.sound

    @property
    def completion_unsaved(self) -> bool:
        """Whether it has become complete, and the record on disk lacks that."""
        return self._record.complete and not (self._saved and self._saved.complete)

    @property
    def candidate(self) -> Candidate:
        """Its entry in the queue."""
        return Candidate(self._record.id, self._record.priority, self._record.added)

    @property
    def etags(self) -> frozenset[str]:
        """Names of the blobs that it has or will have; empty until its snapshot is resolved."""
        return frozenset(file.etag for file in self._found.manifest.files) if self._found else frozenset()

    @property
    def found(self) -> ResolvedTarget | None:
        """The snapshot and its torrent, once resolved."""
        return self._found

    def view(self) -> TransferView:
        """The transfer at this moment."""
        record, error, progress = self._record, self._error, self._monitor.latest
        return TransferView(
            id=record.id,
            repo=str(record.repo),
            commit=record.commit,
            revisions=record.revisions,
            state=self._state(),
            complete=self.complete,
            doubted=self._doubt.check.doubted,
            priority=record.priority,
            added=record.added,
            path=str(self._repo.snapshot(record.commit)),
            size=self._found.manifest.total_size if self._found else 0,
            progress=progress,
            completion=self._completion,
            timings=self._timings,
            error=TransferError(error.code, error.what, error.hint) if error else None,
            notes=self._monitor.notes,
            note_count=self._monitor.note_count,
            rate=progress.download_rate,
            eta=progress.eta,
            engine_ready=self._engine.state in SERVING,
            engine=self._engine.state,
            engine_reached=self._engine.reached,
            gates=self._engine.gates,
            vouched_by=self._found.vouched_by if self._found else "",
            prefetch=bool(record.prefetch),
            awaits_window=waits(record, self._windows or {}),
            followed=self._windows is not None,
        )

    @property
    def monitor(self) -> TransferMonitor:
        """What can be inspected of it at this moment."""
        return self._monitor

    # -- its task --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run, unless it runs. While it still stops, its end is reported as settled."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"transfer {self._record.id}")
            self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Stop soon; `stopped` waits for it."""
        if self._task is not None and not self._stopping:
            self._stopping = True
            self._task.cancel()

    async def stopped(self) -> None:
        """Return once its task has ended and has left the swarm."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Stop, for good."""
        self._closed = True
        self.stop()
        self._next_try.cancel()
        self.set_engine("none")

    def retry(self) -> None:
        """Forget the error that ended it."""
        self._next_try.cancel()
        self._error = None
        self._rests = False

    def fail(self, event: str, error: P2PModelError) -> None:
        """Stop, and stay stopped until it is asked for again."""
        self._error = error
        self._observer.log(notes.error(event, f"{self._record.repo}: {error}"))
        self.stop()

    # -- changes ---------------------------------------------------------------------------------------------

    def note(self, line: str) -> None:
        """Add a note."""
        self._monitor.note(line)

    def pause(self) -> None:
        """Neither download nor serve until `resume`."""
        self._record = replace(self._record, paused=True)

    def resume(self) -> None:
        """Continue after a pause."""
        before, self._record = self._wanted, resumed(self._record)
        if self._wanted != before:
            self._restart_incomplete()

    def follow(self, windows: Windows | None) -> bool:
        """`windows` are those of the follow lists that have it; None: none has. Returns whether anything changes."""
        if windows == self._windows:
            return False
        before, self._windows = self._wanted, windows
        if self._wanted != before:
            self._restart_incomplete()
        return True

    def prioritise(self, priority: int) -> None:
        """Change its place in the queue."""
        self._record = replace(self._record, priority=priority)

    async def learn(self, found: ResolvedTarget) -> None:
        """Adopt `found`, unless a torrent is known already. Its torrent is on disk on return."""
        if self._found is None or self._found.metainfo is None:
            if found.metainfo is not None:
                await asyncio.to_thread(self._records.save_torrent, self._record.id, found.metainfo.raw)
            self._found = found

    async def check_files(self, manifest: Manifest | None = None, *, asked: bool = False) -> bool:
        """Compare the files of a complete transfer with the records: it becomes incomplete when some are missing,
        damaged or changed, and brings them again.

        When its whole snapshot is gone, another program has removed it: then it fails until it is `asked` for again, or
        the snapshot is back. Returns whether anything changed.
        """
        if not self._record.complete:
            return False
        known = manifest or (self._found.manifest if self._found else None)
        found = await asyncio.to_thread(compared, self._repo, self._record, known)
        if not self._record.complete:
            return False  # another check was quicker
        follows = self._doubt.judge(found, asked=asked)
        if follows is Consequence.RETURN:
            self.retry()
        elif follows is Consequence.GIVE_UP:
            self.fail("snapshot_removed", removed_by_another(self._repo, self._record.commit))
        elif follows is Consequence.RECHECK:
            self._has_names = self._has_names and not asked
            self.note(notes.warning("files_doubted", f"{found}: checking them, and downloading what is wrong"))
            self._restart_incomplete()
        return follows is not Consequence.NONE

    def widen(self, demand: TransferDemand) -> None:
        """Add what a further request asks for, and continue if it had failed or, for a client, was paused."""
        before, wanted_before = self._record, self._wanted
        self._record = widened(before, demand)
        self.retry()
        if (self._record.revisions, self._wanted) != (before.revisions, wanted_before):
            self._has_names = False
            self._restart_incomplete()  # the running task was started without it

    def give_up_names(self, names: Sequence[str]) -> bool:
        """Drop `names` from its revisions: they point at another commit now. Returns whether any was dropped."""
        left = tuple(name for name in self._record.revisions if name not in names)
        if left == self._record.revisions:
            return False
        self._record = replace(self._record, revisions=left)
        if not self._record.complete:
            self.stop()  # once complete, it would point the name at its own commit
        return True

    def set_engine(self, state: EngineState, seconds: float | None = None) -> None:
        """Record what an inference engine reports; after `seconds` it no longer counts (None: no limit).

        Raises Conflict for a model that is not complete here.
        """
        if state != "none" and not self.complete:
            raise incomplete(self._record.repo)
        if state not in ("none", self._engine.state):
            self._observer.log(engine_note(self._record.repo, self._record.commit, state))
        self._engine.take(state, seconds)
        self._observer.transfer_changed()

    async def save(self) -> None:
        """Write the record, if it has changed. Durable on return."""
        record = self._record
        if self._saved != record:
            await asyncio.to_thread(self._records.save, record)
            self._saved = record

    async def forget(self) -> None:
        """Stop for good, and remove the record. Files in the cache stay."""
        self.pause()
        self.close()
        await self.stopped()
        await asyncio.to_thread(self._records.forget, self._record.id)

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _wanted(self) -> tuple[Selection, ...]:
        return wanted(self._record, self._windows or {})

    def _state(self) -> State:
        if self._record.paused:
            return "paused"
        if self._error:
            return "failed"
        if self.complete:
            return "seeding" if self._task and self._monitor.latest.phase == "seeding" else "ready"
        return "active" if self._task else "queued"

    def _restart_incomplete(self) -> None:
        self._engine.forget()
        self._rests = False
        self._record = replace(self._record, complete=False)
        self.stop()

    async def _run(self) -> None:
        fetch = self._fetch()
        await fetch.run(self._ready, await self._find(fetch))
        await self._offer()
        self._rests = True

    def _fetch(self) -> Fetch:
        self._fetching = self._wanted
        return Fetch(request_of(self._record, self._fetching), self._settings, self._monitor, context=self._context)

    async def _offer(self) -> None:
        """Serve a snapshot that came from the mirrors alone to a swarm of its own, if there are coordinators."""
        assert self._found is not None
        found = self._found
        metainfo = await torrent_to_offer(self._repo, found.manifest, self._settings, self._monitor)
        if metainfo is None:
            return
        self._found = replace(found, metainfo=metainfo, vouched_by=found.vouched_by or CACHE, refs=(), coordinators=())
        async with companions() as start:
            start(
                keep_offered(
                    publishes_at(self._settings),
                    metainfo,
                    self._record.revisions,
                    self._monitor,
                    signing=self._settings.trust.signing_key,
                    known=found.signatures,
                )
            )
            await self._fetch().run(self._ready, self._found)

    async def _find(self, fetch: Fetch) -> ResolvedTarget:
        if await asyncio.to_thread(is_refused, self._found, self._settings):
            self._found = None
        if self._found is None or self._found.metainfo is None:
            self._found = await self._find_saved(fetch) or self._found or await fetch.find()
        refs = () if self._has_names else self._record.revisions
        return replace(self._found, refs=refs, trackers=self._record.trackers)

    async def _find_saved(self, fetch: Fetch) -> ResolvedTarget | None:
        """The saved torrent. One that a mirror contradicts counts as none. Raises Unconfirmed."""
        metainfo = await asyncio.to_thread(saved_torrent, self._record, self._records, self._repo, self._settings)
        try:
            return await fetch.confirm(metainfo) if metainfo is not None else None
        except Contradicted as error:
            self._monitor.note(notes.warning("torrent_contradicted", f"the saved torrent is not used: {error.what}"))
            return None

    def _ready(self, fetched: FetchResult) -> None:
        if not self._record.complete:
            ready = f"{self._record.repo}@{self._record.commit} is ready at {fetched.path}"
            keys = {"repo": str(self._record.repo), "commit": self._record.commit, "path": str(fetched.path)}
            self._observer.log(notes.info("snapshot_ready", ready, **keys))
            self._completion, self._timings = fetched.progress, fetched.timings
            self._engine.complete()
        self._record = completed(self._record, self._fetching)
        self._doubt.clear()
        self._has_names = True
        self._next_try.succeeded()
        self._observer.transfer_settled()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._stopping = False
        self._monitor.ended()
        if not task.cancelled() and (error := task.exception()) is not None:
            # An error of any kind ends this transfer, but not the node and its other transfers.
            self._error = translate(error)
            files = self._found.manifest.select_any(self._fetching) if self._found else ()
            then = "" if self._closed else self._next_try.failed(self._error, files)
            repo = str(self._record.repo)
            self._observer.log(notes.error("transfer_failed", f"{repo} failed: {self._error}{then}", repo=repo))
        self._observer.transfer_settled()

    def _try_again(self) -> None:
        self.retry()
        self._observer.transfer_settled()
