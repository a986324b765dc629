"""One snapshot that a long-lived node keeps: it is brought here, then served, until it is stopped.

Its state belongs to its task and to the calls below, all on the event loop; readers get frozen views. The task is a
`Fetch`, the same that a command embeds. Stopping it at any moment leaves what a kill would: the next start resumes.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from p2pmodel.config.settings import Settings
from p2pmodel.core.backoff import Backoff
from p2pmodel.core.connections import PeerConnection
from p2pmodel.core.names import Reference
from p2pmodel.core.progress import Pieces, Progress, Timings
from p2pmodel.core.rate import Rate
from p2pmodel.core.tasks import companions
from p2pmodel.core.views import Candidate, State, TransferError, TransferView
from p2pmodel.errors import Conflict, P2PModelError, Unavailable
from p2pmodel.node.fetch.fetch import FOR_EVER, Fetch, FetchRequest, FetchResult, NodeContext
from p2pmodel.node.reporter import Insight, Reporter
from p2pmodel.node.seed.offer import keep_offered, torrent_to_offer
from p2pmodel.node.snapshot.resolve import ResolvedTarget
from p2pmodel.os_errors import translate
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords
from p2pmodel.swarm.torrents import Metainfo, parse

NOTES = 20
"""Lines that are remembered of one transfer."""
FIRST_RETRY = 30.0
"""Seconds after which a transfer that nobody could feed is tried again by itself; twice as many each further time."""
LAST_RETRY = 600.0
_COMING = ("mirroring", "downloading")
"""Phases in which bytes come."""


class ManagedTransfer:
    """One transfer. `changed` is called whenever `view` says something else, `settled` besides when it has become
    complete or its task has ended; `note` gets lines for the log."""

    def __init__(
        self,
        record: TransferRecord,
        home: NodeContext,
        settings: Settings,
        records: TransferRecords,
        *,
        changed: Callable[[], None],
        settled: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        self.record = record
        self.error: P2PModelError | None = None
        self._home = home
        self._settings = settings
        self._records = records
        self._changed = changed
        self._settled = settled
        self._log = note
        self._repo = home.cache.repo(record.repo)
        self._found: ResolvedTarget | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._closed = False
        self._again: asyncio.TimerHandle | None = None
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        self._rests = False
        """Whether it came to its own end: complete, and nobody to serve it to."""
        self._reporter = Reporter(self._see, self.say, self._look_into)
        self._insight: Insight | None = None
        self._rate = Rate()
        self._progress = Progress("finding")
        self._arrived: Progress | None = None
        self._timings: Timings | None = None
        self._engine_ready = False
        self._engine_lapses: asyncio.TimerHandle | None = None
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._noted = 0

    @property
    def eligible(self) -> bool:
        """Whether it would run if it were let."""
        return not (self.record.paused or self.error or self._rests)

    @property
    def candidate(self) -> Candidate:
        """It, as the queue sees it."""
        return Candidate(self.record.id, self.record.priority, self.record.added)

    @property
    def etags(self) -> frozenset[str]:
        """Names of the blobs that it has or will have, as far as they are known."""
        return frozenset(file.etag for file in self._found.manifest.files) if self._found else frozenset()

    @property
    def found(self) -> ResolvedTarget | None:
        """The snapshot and its torrent, as far as they are known."""
        return self._found

    @property
    def has_torrent(self) -> bool:
        """Whether it is known by which torrent it arrives."""
        return self._found is not None and self._found.metainfo is not None

    def know(self, found: ResolvedTarget) -> None:
        """`found` is the snapshot: there is no need to look for it."""
        self._found = found

    def engine_is(self, *, ready: bool, seconds: float | None = None) -> None:
        """An inference engine says that it has the model up, which is believed for `seconds` (None: until it says
        otherwise), or that it has it no longer. Raises Conflict for a model that is not here."""
        if ready and not self.record.complete:
            raise Conflict(
                f"{self.record.repo} is not here yet: no engine can have it up", hint="say so once it is complete"
            )
        if self._engine_lapses is not None:
            self._engine_lapses.cancel()
            self._engine_lapses = None
        self._engine_ready = ready
        if ready and seconds is not None:
            loop = asyncio.get_running_loop()
            self._engine_lapses = loop.call_later(seconds, lambda: self.engine_is(ready=False))
        self._changed()

    def start(self) -> None:
        """Run, unless it does. One that is still stopping tells when it has stopped."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"transfer {self.record.id}")
            self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Stop soon; `stopped` waits for it."""
        if self._task is not None and not self._stopping:
            self._stopping = True
            self._task.cancel()

    async def stopped(self) -> None:
        """Return once its task has ended, and with it its part in the swarm."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Stop, for good."""
        self._closed = True
        self.stop()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self.engine_is(ready=False)

    def retry(self) -> None:
        """Whatever made it end is forgotten."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self.error = None
        self._rests = False

    def say(self, line: str) -> None:
        """Remember a line about it."""
        self._notes.append(line)
        self._noted += 1
        self._log(f"{self.record.repo}: {line}")
        self._changed()

    def view(self) -> TransferView:
        """It at this moment."""
        record, error = self.record, self.error
        rate = self._rate.value() if self._task and self._progress.phase in _COMING else 0
        return TransferView(
            id=record.id,
            repo=str(record.repo),
            commit=record.commit,
            revisions=record.revisions,
            state=self._state(),
            complete=record.complete,
            priority=record.priority,
            added=record.added,
            path=str(self._repo.snapshot(record.commit)),
            size=self._found.manifest.total_size if self._found else 0,
            progress=self._progress if self._task else _at_rest(self._progress),
            arrived=self._arrived,
            timings=self._timings,
            trouble=TransferError(error.code, error.what, error.hint) if error else None,
            notes=tuple(self._notes),
            noted=self._noted,
            rate=rate,
            eta=(self._progress.total - self._progress.done) / rate if rate else None,
            engine_ready=self._engine_ready,
        )

    def pieces(self) -> Pieces:
        """Which pieces are here at this moment; none while it is in no swarm."""
        return self._insight.pieces() if self._insight else Pieces()

    async def connections(self) -> tuple[PeerConnection, ...]:
        """Whom it exchanges bytes with at this moment."""
        return await self._insight.connections() if self._insight else ()

    def _state(self) -> State:
        if self.record.paused:
            return "paused"
        if self.error:
            return "failed"
        if self.record.complete:
            return "seeding" if self._task and self._progress.phase == "seeding" else "ready"
        return "active" if self._task else "queued"

    async def _run(self) -> None:
        try:
            fetching = self._fetching()
            await fetching.run(self._ready, await self._find(fetching))
            await self._offer()
            self._rests = True
        except Exception as error:  # noqa: BLE001 - of any kind: it must not end the node and all other transfers
            self.error = translate(error)
            self._log(f"{self.record.repo} failed: {self.error}")

    def _fetching(self) -> Fetch:
        request = FetchRequest(
            Reference(self.record.repo, self.record.commit),
            include=self.record.selections[0].include,
            exclude=self.record.selections[0].exclude,
            also=self.record.selections[1:],
            peers=self.record.peers,
            seed_seconds=FOR_EVER,
        )
        return Fetch(request, self._settings, self._reporter, home=self._home)

    async def _offer(self) -> None:
        """Serve to a swarm of its own what came from the mirrors alone, as far as there are coordinators to tell."""
        assert self._found is not None
        manifest = self._found.manifest
        metainfo = await torrent_to_offer(self._repo, manifest, self._settings, self._reporter)
        if metainfo is None:
            return
        self._found = ResolvedTarget(manifest, metainfo)
        async with companions() as start:
            start(keep_offered(self._settings.coordinators, metainfo.raw, self.record.revisions, self.say))
            await self._fetching().run(self._ready, self._found)

    async def _find(self, fetching: Fetch) -> ResolvedTarget:
        if self._found is None or self._found.metainfo is None:
            metainfo = await asyncio.to_thread(self._known_torrent)
            if metainfo is not None:
                self._found = ResolvedTarget(metainfo.manifest, metainfo)
            elif self._found is None:
                self._found = await fetching.find()
        # What is complete has its names; by now they may mean another commit.
        return replace(self._found, refs=() if self.record.complete else self.record.revisions)

    def _known_torrent(self) -> Metainfo | None:
        """The torrent by which it arrives, or once arrived. One that cannot be used counts as none."""
        record = self.record
        for raw in (self._records.torrent(record.id), self._repo.staging(record.commit).load_metainfo()):
            with suppress(P2PModelError):
                metainfo = parse(raw) if raw else None
                if metainfo and (metainfo.manifest.repo, metainfo.manifest.commit) == (record.repo, record.commit):
                    return metainfo
        return None

    def _ready(self, fetched: FetchResult) -> None:
        if not self.record.complete:
            self._log(f"{self.record.repo}@{self.record.commit} is ready at {fetched.path}")
            self._arrived, self._timings = fetched.progress, fetched.timings
        self.record = replace(self.record, complete=True)
        self._backoff.succeeded()
        self._settled()

    def _see(self, progress: Progress) -> None:
        if progress != self._progress:
            if progress.phase in _COMING and self._progress.phase in _COMING:
                self._rate.add(max(0, progress.done - self._progress.done))
            self._progress = progress
            self._changed()

    def _look_into(self, insight: Insight) -> None:
        self._insight = insight

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._stopping = False
        self._insight, self._rate = None, Rate()
        if not task.cancelled():
            task.result()  # it catches all: anything here is a bug to be seen
        if isinstance(self.error, Unavailable) and not self._closed:
            self._again = asyncio.get_running_loop().call_later(self._backoff.failed(), self._try_again)
        self._settled()

    def _try_again(self) -> None:
        self.retry()
        self._settled()


def _at_rest(progress: Progress) -> Progress:
    return replace(progress, peers=0, download_rate=0, upload_rate=0, waiting_for="")
