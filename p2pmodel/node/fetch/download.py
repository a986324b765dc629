"""Download one snapshot through the swarm and seed it: the public face of a transfer.

An `Attempt` does the work. A file that proves damaged on this disk starts another one, and so does the first peer that
comes to a node which was alone.
"""

import asyncio
import secrets
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from p2pmodel.core import notes
from p2pmodel.core.content.bitfield import pack
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.pace import Rate
from p2pmodel.core.tasks import companions
from p2pmodel.errors import LocalResource
from p2pmodel.node.fetch.attempt import Attempt
from p2pmodel.node.fetch.join import join
from p2pmodel.node.fetch.pieces.block_pull import blocks_size
from p2pmodel.node.fetch.pieces.have_record import HaveRecord
from p2pmodel.node.fetch.pieces.leaseholder import Crowded
from p2pmodel.node.fetch.pieces.seeders import Seeders
from p2pmodel.node.fetch.pieces.stats import PieceStats
from p2pmodel.node.fetch.plan import DownloadContext, DownloadPlan
from p2pmodel.node.fetch.publisher import DamagedFile
from p2pmodel.node.reporter import Phase, Pieces, Progress, Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.swarm.engine import Engine, SwarmStatus
from p2pmodel.tls import NO_FILES

if TYPE_CHECKING:
    from p2pmodel.node.seed.web_seed import WebSeed, WebSeedOffer

REPORT_EVERY = 0.2
HANDED_ON_AFTER = 1.5
"""Seconds without an uploaded byte after which no peer lacks a piece that only this node has."""
HAND_ON_FOR = 60.0
"""Seconds after which peers that still lack pieces are left to the other nodes."""
REPORT_SEEDING_EVERY = 0.5
HEADER_ATTEMPTS = 2
"""Attempts for headers alone: the second one for headers that are longer than those of older revisions."""
MAX_DAMAGE = 3
"""Times one file may prove damaged on this disk before the download fails."""
_NOT_JOINED = SwarmStatus(frozenset(), (), 0, 0, 0, 0, 0, 0, 0)


class Download:
    """One download and its seeding: `async with`, then `download()`, then `seed()`.

    `growing` gives access to its files while they grow; `web_seed` serves them over HTTP once all are complete.
    """

    def __init__(
        self,
        plan: DownloadPlan,
        *,
        engine: Engine,
        repo: RepoCache,
        origin: Origin | None,
        reporter: Reporter,
        growing: GrowingFiles | None = None,
        web_seed: "WebSeed | None" = None,
    ) -> None:
        staging = repo.staging(plan.metainfo.manifest.commit)
        self._stats = PieceStats(plan.metainfo, plan.files, plan.pieces, blocks_size(plan.metainfo, plan.blocks))
        self._context = DownloadContext(
            plan,
            engine,
            repo,
            origin,
            reporter,
            growing or GrowingFiles(),
            staging,
            self._stats,
            HaveRecord(repo.staged, plan.metainfo, self._stats),
            own_id=secrets.token_hex(4),
        )
        self._plan = plan
        self._reporter = reporter
        self._web_seed = web_seed
        self._offer: WebSeedOffer | None = None
        self._attempt: Attempt | None = None
        self._seeders: Seeders | None = None
        """Those of the attempt, also of one that begins."""
        self._phase: Phase = "checking"
        self._http_rate = Rate()
        self._over_http = 0
        """Bytes over HTTP that `_http_rate` includes."""

    async def __aenter__(self) -> Self:
        self._reporter.details(self)
        self._reporter.files(partial(self._stats.file_progress, self._plan.metainfo.manifest))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._leave()

    async def download(self) -> None:
        """Fetch, verify and publish every planned file, or stage the planned pieces. Raises the reason when that cannot
        be done."""
        tries = 0
        while True:
            try:
                if not await self._try(headers_first=tries < HEADER_ATTEMPTS):
                    return
                tries += 1
            except DamagedFile as file:
                self._count_damage(file)
            except Crowded:
                self._context = replace(self._context, may_leave=False)
            await self._leave()

    @property
    def left(self) -> frozenset[int]:
        """Pieces of which no seeder proved the planned blocks."""
        return frozenset(self._attempt.blocks.left) if self._attempt else frozenset()

    async def seed(self, *, seconds: float | None, ratio: float | None) -> None:
        """Serve the snapshot until either bound is reached (None: no such bound; both None: for ever)."""
        attempt = self._joined()
        self._phase = "seeding"
        ends = None if seconds is None else time.monotonic() + seconds
        async with companions() as start:
            start(attempt.follow_events())
            start(attempt.check_complaints())
            start(self._report(REPORT_SEEDING_EVERY))
            start(attempt.membership.watch())
            if self._web_seed and self._stats.has_all:
                self._offer = self._new_offer(self._web_seed, attempt)
                start(self._offer.run())
            while ends is None or time.monotonic() < ends:
                if ratio is not None and self._uploaded() >= ratio * self._stats.total:
                    return
                await asyncio.sleep(REPORT_SEEDING_EVERY)

    async def hand_on(self) -> None:
        """Serve the snapshot until connected peers have taken what only this node has: until nothing was uploaded for
        `HANDED_ON_AFTER` seconds, or `HAND_ON_FOR` have passed."""
        self._joined()
        began = last = time.monotonic()
        sent, had_peers = self._uploaded(), False
        while (now := time.monotonic()) < min(last + HANDED_ON_AFTER, began + HAND_ON_FOR):
            peers = self._status().peers
            had_peers = had_peers or peers > 0
            if had_peers and not peers:
                return
            if self._uploaded() > sent or (not had_peers and now < began + (self._plan.connect_within or 0.0)):
                sent, last = self._uploaded(), now
            await asyncio.sleep(REPORT_EVERY)

    def progress(self) -> Progress:
        """The transfer at this moment."""
        status, stats, attempt = self._status(), self._stats, self._attempt
        waits = attempt is not None and stats.unfinished and self._phase == "downloading"
        return Progress(
            phase=self._phase,
            total=stats.total,
            done=stats.checked if self._phase == "checking" else stats.done,
            from_cache=stats.from_cache,
            from_peers=stats.from_peers,
            from_seeders=stats.from_seeders,
            from_mirrors=stats.from_mirrors,
            from_other_zones=attempt.bytes_from_other_zones() if attempt else None,
            uploaded=self._uploaded(),
            peers=status.peers,
            download_rate=status.download_rate + self._http_rate.value() if stats.unfinished else 0,
            upload_rate=status.upload_rate,
            waiting_for=attempt.stall.reason() if attempt and waits else "",
            rejected=stats.rejected,
            exception=attempt.exception if attempt else "",
            unreachable=attempt.unreachable if attempt else "",
        )

    def pieces(self) -> Pieces:
        """Which pieces are here, and from which source; none while it is in no swarm."""
        if self._attempt is None:
            return Pieces()
        status, count = self._status(), self._plan.metainfo.layout.piece_count
        return Pieces(
            count,
            have=pack(status.have, count),
            from_cache=pack(status.have & self._stats.before, count),
            from_mirrors=pack(status.have & self._stats.mirrored, count),
            availability=bytes(min(peers, 255) for peers in status.availability),
        )

    async def connections(self) -> tuple[PeerConnection, ...]:
        """The seeders that bytes are pulled from, and the connected peers."""
        if self._attempt is not None:
            return await self._attempt.connections()
        return self._seeders.connections() if self._seeders else ()

    def enter(self, phase: Phase) -> None:
        """The attempt has reached `phase`; satisfies `PhaseObserver`."""
        self._phase = phase
        self._reporter.progress(self.progress())

    async def _try(self, *, headers_first: bool) -> bool:
        """Whether another attempt must follow: this one was for headers alone."""
        plan, identity = self._plan, self._context.identity
        async with (
            Seeders(
                *(plan.origin_settings, identity, self._reporter.note),
                pace=plan.pace,
                http=plan.http,
                files=next((each.files for each in plan.coordinators), NO_FILES),
            ) as seeders,
            companions() as start,
        ):
            self._seeders, self._over_http = seeders, 0
            start(self._report())
            self._attempt = await join(self._context, self, seeders, start, headers_first=headers_first)
            self._over_http = self._attempt.received_over_http()
            self._attempt.stall.progressed()
            self.enter("downloading" if self._stats.unfinished else "verifying")
            await self._attempt.run(start)
            if plan.pieces is not None:  # readable from here on, and a later run finds them
                await self._attempt.torrent.flush()
                await self._context.record.save_whole(self._attempt.torrent)
        if self._attempt.only is not None and plan.pieces is None:
            return True
        self.enter("done")
        return False

    async def _leave(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            await attempt.leave()

    def _count_damage(self, file: DamagedFile) -> None:
        damage = self._context.damage
        damage[file.index] = damage.get(file.index, 0) + 1
        if damage[file.index] >= MAX_DAMAGE:
            raise LocalResource(
                f"{file.path} is damaged after each download", hint="check this machine's disk and memory"
            ) from None
        self._reporter.note(
            notes.warning(
                "file_damaged",
                f"{file.path} was damaged on this disk; its bad pieces are downloaded again",
                file=file.path,
            )
        )

    def _joined(self) -> Attempt:
        assert self._attempt is not None, "download() comes first"
        return self._attempt

    def _new_offer(self, web_seed: "WebSeed", attempt: Attempt) -> "WebSeedOffer":
        from p2pmodel.node.seed.web_seed import WebSeedOffer  # noqa: PLC0415 - only what stays to serve needs it

        return WebSeedOffer(
            web_seed,
            attempt.torrent,
            self._plan.metainfo,
            self._reporter,
            coordinators=self._plan.coordinators,
            trackers=self._plan.trackers,
            signatures=self._plan.signatures,
            membership=attempt.membership,
        )

    async def _report(self, every: float = REPORT_EVERY) -> None:
        while True:
            self._measure_http()
            self._reporter.progress(self.progress())
            await asyncio.sleep(every)

    def _measure_http(self) -> None:
        if self._seeders is None or not self._stats.unfinished:
            return
        received = self._attempt.received_over_http() if self._attempt else self._seeders.received
        self._http_rate.add(max(0, received - self._over_http))
        self._over_http = received

    def _status(self) -> SwarmStatus:
        return self._attempt.status() if self._attempt else _NOT_JOINED

    def _uploaded(self) -> int:
        return (self._offer.sent if self._offer else 0) + self._status().uploaded
