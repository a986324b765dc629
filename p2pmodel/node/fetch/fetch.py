"""Fetch a snapshot: resolve the target, download it through the swarm or from the mirrors alone, and serve it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured, trackers_with
from p2pmodel.coordinator.client.urls import as_peer
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.core.content.request_window import FileRange
from p2pmodel.core.pace import Pace
from p2pmodel.core.progress.progress import cut_off
from p2pmodel.core.progress.views import FirstPiecesView
from p2pmodel.core.tasks import companions
from p2pmodel.errors import LocalResource, Unavailable, WrongTorrent
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.assembly.outcome import AssemblyOutcome
from p2pmodel.node.backends import FetchOrigin, LazyEngine, OriginRegistry
from p2pmodel.node.fetch.disputes import DisputedFile
from p2pmodel.node.fetch.download import Download
from p2pmodel.node.fetch.job import FetchJob, FetchMonitor, NodeContext
from p2pmodel.node.fetch.pieces.first_requests import FirstRequests
from p2pmodel.node.fetch.plan import DownloadPlan
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.fetch.wrong_torrents import WrongTorrents
from p2pmodel.node.private.authority import check_private
from p2pmodel.node.reporter import Progress, Reporter
from p2pmodel.node.rollout.participants import FetchRollout
from p2pmodel.node.snapshot.evidence.content_check import check_contents
from p2pmodel.node.snapshot.evidence.second_opinion import SecondOpinion
from p2pmodel.node.snapshot.evidence.signature_check import SignatureCheck
from p2pmodel.node.snapshot.evidence.voucher import Vouching
from p2pmodel.node.snapshot.lock import downloading
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy
from p2pmodel.node.snapshot.reference_search import torrent_by_now
from p2pmodel.node.snapshot.resolve import find_reference, find_torrent
from p2pmodel.node.snapshot.target import ResolvedTarget, TorrentTarget
from p2pmodel.node.snapshot.torrents.torrent_names import names_of
from p2pmodel.node.snapshot.update_plan import Planner, UpdatePlan
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.store.snapshots.snapshot_list import check_snapshot
from p2pmodel.store.space.usage import note_use
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.torrents import Metainfo
from p2pmodel.trust.content_policy import ContentPolicy

LOOK_EVERY = 5.0
"""Seconds between two comparisons of the seeded files with the records."""
RECONNECT_WITHIN = 5.0
"""Seconds in which the nodes of an assembly are connected again in the swarm of its torrent."""


class Fetch:
    """One fetch; `context` as in `FetchJob`."""

    def __init__(
        self, request: FetchRequest, settings: Settings, reporter: Reporter, *, context: NodeContext | None = None
    ) -> None:
        monitor = FetchMonitor(reporter)
        registry = context.origins if context else OriginRegistry()
        http = HttpPool()
        pace = context.pace if context else Pace(settings.swarm.download_limit)
        self._job = FetchJob(
            request,
            settings,
            monitor,
            context,
            context.cache
            if context
            else HubCache(settings.cache_dir, settings.state_dir, policy=ContentPolicy(settings.contents.rules)),
            context.growing if context else GrowingFiles(),
            FetchOrigin(settings, registry, monitor, http, pace),
            http,
            pace,
        )
        self._first = FirstRequests(self._job.growing)

    async def run(
        self,
        on_ready: Callable[[FetchResult], None],
        found: ResolvedTarget | None = None,
        on_found: Callable[[ResolvedTarget], None] = lambda _target: None,
    ) -> None:
        """Fetch, call `on_ready` once the snapshot is complete and visible, then serve as long as the request says.

        `found` is the result of `find`, if known. `on_found` gets the target before anything is downloaded.
        """
        wanted = self._job.request.target
        repo = wanted.repo if isinstance(wanted, Reference) else None
        await asyncio.to_thread(self._job.cache.check_usable, repo)
        self._job.monitor.progress(Progress("finding"))
        async with self._job.http, AsyncExitStack() as stack, self._job.mirrors:
            engine = self._job.engine(stack)
            check = SignatureCheck(self._job.settings, self._job.monitor, self._job.http)
            target = await check.checked(found or await self._find(engine))
            if self._job.settings.trust.confirm:
                await SecondOpinion(self._job.settings, await self._job.mirrors.opened()).require(target.manifest)
            on_found(target)
            if self._job.context is None:  # a node reports all its transfers
                rollout = self._job.monitor.join_rollouts(self._job.settings, target.manifest)
                await stack.enter_async_context(rollout.reporting(self._job.http))
            await FetchRun(self._job, target, engine, on_ready).run()

    def repo(self, manifest: Manifest) -> RepoCache:
        """Where the files of `manifest` go."""
        return self._job.cache.repo(manifest.repo)

    def selected(self, manifest: Manifest) -> tuple[ManifestFile, ...]:
        """The files that the request selects."""
        return self._job.selected(manifest)

    def request_first(self, manifest: Manifest, places: Sequence[FileRange]) -> FirstPiecesView:
        """Ask the peers for `places` before others, as `FirstRequests` does."""
        return self._first.request(self.repo(manifest), manifest, places)

    @property
    def rollout(self) -> FetchRollout | None:
        """Its part in roll-outs; None before the target is resolved."""
        return self._job.monitor.rollout

    async def find(self) -> ResolvedTarget:
        """Resolve the request's target."""
        async with self._job.http, AsyncExitStack() as stack, self._job.mirrors:
            return await self._find(self._job.engine(stack))

    async def confirm(self, metainfo: Metainfo) -> ResolvedTarget:
        """The target of a torrent that was saved before. Raises Contradicted or Unconfirmed if it has no voucher."""
        async with self._job.http, self._job.mirrors:
            vouching = Vouching(self._job.settings, await self._job.mirrors.opened())
            voucher = await vouching.voucher(metainfo.manifest)
        return ResolvedTarget(metainfo.manifest, metainfo, vouched_by=voucher)

    async def plan(self, found: ResolvedTarget | None = None) -> UpdatePlan:
        """What `run` would move. `found` as there."""
        async with self._job.http, AsyncExitStack() as stack, self._job.mirrors:
            target = found or await self._find(self._job.engine(stack))
            origin = await self._job.mirrors.opened(target.metainfo)
            repo, files = self._job.cache.repo(target.manifest.repo), self._job.selected(target.manifest)
            return await Planner(repo, target, origin).plan(files)

    async def _find(self, engine: LazyEngine) -> ResolvedTarget:
        target, names = self._job.request.target, self._job.request.names
        if isinstance(target, TorrentTarget):
            found = await self._find_torrent(target, engine, named=bool(names))
        else:
            found = await self._find_reference(target)
        return replace(found, refs=tuple(dict.fromkeys((*found.refs, *names))))

    async def _find_torrent(self, target: TorrentTarget, engine: LazyEngine, *, named: bool) -> ResolvedTarget:
        job, origin = self._job, await self._job.mirrors.opened()
        peers = job.request.peers
        found = await find_torrent(target, job.settings, engine, origin, job.monitor, peers=peers, http=job.http)
        if named:
            return found
        names = await names_of(found.manifest, job.settings, job.cache, origin, job.monitor, http=job.http)
        return replace(found, refs=names)

    async def _find_reference(self, target: Reference) -> ResolvedTarget:
        job = self._job
        return await find_reference(
            target,
            job.settings,
            job.cache,
            await job.mirrors.opened(),
            job.monitor,
            to_serve=job.serves,
            to_share=job.may_assemble,
            fresh=job.request.fresh,
            http=job.http,
        )


class FetchRun:
    """Fetches one resolved snapshot: through its swarm, by an assembly, or from the mirrors alone."""

    def __init__(
        self, job: FetchJob, found: ResolvedTarget, engine: LazyEngine, on_ready: Callable[[FetchResult], None]
    ) -> None:
        self._job = job
        self._found = found
        self._manifest = found.manifest
        self._repo = job.cache.repo(found.manifest.repo)
        self._repo.places.plain.know(found.manifest)
        self._engine = engine
        self._on_ready = on_ready

    async def run(self) -> None:
        """Fetch, report the snapshot as ready, and serve it."""
        await self.check_contents()
        if self._job.context is None:  # a node records what its clients ask for, not its own starts
            await asyncio.to_thread(note_use, self._repo, self._manifest.commit)
        writable = await self._is_writable()
        if self._found.metainfo is not None:
            await self._from_swarm(self._found.metainfo)
        elif self._found.coordinators and self._job.may_assemble and writable and not self._is_private:
            await self._by_assembly()
        else:
            await self._from_mirrors()

    async def check_contents(self) -> None:
        """Raise the error of the policy on contents, if the requested files break it."""
        job, manifest = self._job, self._manifest
        policy = ContentPolicy(job.settings.contents.rules)
        origin = await job.mirrors.opened() if policy.needs_card(manifest.repo) else None
        await check_contents(policy, self._repo, manifest, job.selected(manifest), origin=origin, growing=job.growing)

    @property
    def _is_private(self) -> bool:
        """Whether the snapshot may be exchanged in a private swarm alone: an assembly is none."""
        return self._job.settings.private.covers(str(self._manifest.repo))

    async def _is_writable(self) -> bool:
        """Whether the cache can be written to. Raises LocalResource if it must be: files of the snapshot are missing.
        A complete snapshot is only read."""
        repo, commit = self._repo, self._manifest.commit
        if await asyncio.to_thread(repo.lacking, self._job.selected(self._manifest)):
            await asyncio.to_thread(repo.require_writable)
        if repo.writable:
            return True
        for name in self._found.refs:
            if (held := await asyncio.to_thread(repo.resolve, name)) != commit:
                text = f"{name} stays at {held or 'no commit'} in this cache, which cannot be written to"
                self._job.monitor.note(notes.warning("ref_not_set", f"{text}; it should be {commit}", ref=name))
        return False

    async def _by_assembly(self) -> None:
        from p2pmodel.node.assembly.assembly import AssemblyDownload  # noqa: PLC0415 - only where there is no torrent
        from p2pmodel.node.assembly.context import AssemblyContext  # noqa: PLC0415

        origin, settings = await self._job.mirrors.opened(), self._job.settings
        assert origin is not None
        async with self.downloading(self._manifest.files):
            context = AssemblyContext(
                *(self._manifest, self._found.refs, self._found.coordinators),
                repo=self._repo,
                origin=origin,
                engine=self._engine,
                settings=settings.swarm,
                reporter=self._job.monitor,
                growing=self._job.growing,
                http=self._job.http,
                node=self._job.node,
                torrent_by_now=partial(torrent_by_now, self._manifest, settings, self._job.monitor, self._job.http),
                numbers=self._job.monitor.numbers,
            )
            outcome = await AssemblyDownload(context).run()
        if outcome.cut_off:
            self._job.monitor.exception = cut_off(self._job.node)
        if outcome.metainfo and not (outcome.complete and not self._job.serves):
            await self._from_swarm(outcome.metainfo, outcome)
        elif outcome.complete:
            self._ready()
        else:
            await self._from_mirrors(outcome)

    async def _from_mirrors(self, before: AssemblyOutcome | None = None) -> None:
        files = self._job.selected(self._manifest)
        origin = await self._job.mirrors.opened()
        async with self.downloading(files):
            copy = MirrorCopy(
                origin,
                self._repo,
                self._manifest,
                self._job.monitor,
                pulled_before=before.pulled_bytes if before else 0,
                exchanged_before=before.exchanged_bytes if before else 0,
                growing=self._job.growing,
            )
            await copy.run(files, self._found.refs)
        self._ready()
        if self._job.serves:
            self._job.monitor.note(
                notes.info(
                    "no_swarm",
                    "no seeder has a torrent of this snapshot: no swarm to serve it to ('p2pmodel seed' makes one)",
                )
            )

    async def _from_swarm(self, metainfo: Metainfo, assembled: AssemblyOutcome | None = None) -> None:
        """`assembled`: the assembly that has just made the torrent. A torrent that proves wrong is replaced by another
        one, or by the mirrors."""
        wrong, judged = WrongTorrents(self._job.settings, self._job.monitor, self._job.http), set[int]()
        while True:
            try:
                return await self._transfer(metainfo, await self._engine.started(), assembled, frozenset(judged))
            except DisputedFile as dispute:
                judged.add(dispute.index)
                error = await self._judged(wrong, metainfo, dispute.index)
            except WrongTorrent as found:
                error = found
            if error is None:
                continue
            other = await wrong.replacement(metainfo, error)
            if other is None:
                break
            metainfo, assembled, judged = other, None, set()
        try:
            await self._from_mirrors()
        except Unavailable:
            raise error from None

    async def _judged(self, wrong: WrongTorrents, metainfo: Metainfo, index: int) -> WrongTorrent | None:
        """What is wrong with the torrent's file `index`; None if nothing is, or no mirror proves it."""
        job = self._job
        origin = await job.mirrors.opened()
        copy = MirrorCopy(origin, self._repo, self._manifest, job.monitor, growing=job.growing)
        try:
            async with self.downloading(job.selected(self._manifest)):
                await wrong.judge(metainfo, index, copy)
        except WrongTorrent as error:
            if origin is not None:
                origin.judge(metainfo.manifest.files[index], pieces_right=False)
            return error
        return None

    async def _transfer(
        self, metainfo: Metainfo, engine: Engine, assembled: AssemblyOutcome | None, judged: frozenset[int]
    ) -> None:
        job = self._job
        check_private(metainfo, job.settings.private)  # also one that replaces a wrong torrent
        check = SignatureCheck(job.settings, job.monitor, job.http)
        signed = await check.replaces_hashes(metainfo, self._found.signatures)
        async with Download(
            replace(self.plan(metainfo, assembled), judged=judged, hashes_signed=signed),
            engine=engine,
            repo=self._repo,
            origin=await job.mirrors.opened(metainfo),
            reporter=job.monitor,
            growing=job.growing,
            web_seed=job.context.web_seed if job.context else None,
        ) as transfer:
            async with self.downloading(job.selected(self._manifest)):
                await transfer.download()
            self._ready()
            if job.serves:
                async with companions() as start:
                    if job.context is None:  # a node looks at the files of all its transfers
                        start(self._fail_in_doubt())
                    await transfer.seed(seconds=job.request.seed_seconds, ratio=job.request.seed_ratio)
            elif assembled is not None:
                await transfer.hand_on()

    async def _fail_in_doubt(self) -> None:
        """Fail when files are damaged, missing or changed: they must not be served."""
        repo, commit, files = self._repo, self._manifest.commit, self._job.selected(self._manifest)
        while True:
            await asyncio.sleep(LOOK_EVERY)
            found = await asyncio.to_thread(check_snapshot, repo, commit, files)
            if not found.sound:
                raise LocalResource(
                    f"{found}: {repo.repo}@{commit} is no longer seeded",
                    hint="run the same command again: it downloads what is wrong",
                )

    def plan(self, metainfo: Metainfo, assembled: AssemblyOutcome | None = None) -> DownloadPlan:
        """The download of the requested files by this torrent."""
        settings, manifest = self._job.settings, self._manifest
        chosen = set(self._job.selected(manifest))
        coordinators = configured(settings)
        trackers = trackers_with(self._found.trackers, coordinators)
        return DownloadPlan(
            metainfo=metainfo,
            files=frozenset(i for i, file in enumerate(manifest.files) if file in chosen),
            refs=self._found.refs,
            trackers=tuple(as_peer(url, settings.swarm.zone, settings.swarm.advertise) for url in trackers),
            peers=self._job.request.peers,
            coordinators=coordinators,
            signatures=self._found.signatures,
            coordinator_timeout=settings.swarm.coordinator_timeout,
            origin_settings=settings.origin,
            advertised=tuple(each.host for each in settings.swarm.advertised),
            zone=self._job.zone,
            pace=self._job.pace,
            http=self._job.http,
            peer_timeout=settings.swarm.peer_timeout,
            stall_timeout=settings.swarm.stall_timeout,
            mirrored=assembled.pulled if assembled else frozenset(),
            exchanged=assembled.exchanged if assembled else frozenset(),
            connect_within=RECONNECT_WITHIN if assembled else None,
            node=self._job.node,
            numbers=self._job.monitor.numbers,
        )

    def downloading(self, files: Sequence[ManifestFile]) -> AbstractAsyncContextManager[None]:
        """As `lock.downloading`."""
        return downloading(self._repo, self._manifest, files, self._found.refs, self._job.monitor)

    def _ready(self) -> None:
        path, monitor = self._repo.snapshot(self._manifest.commit), self._job.monitor
        if monitor.rollout is not None:
            monitor.rollout.ready()
        self._on_ready(FetchResult(self._manifest, path, monitor.timings(), monitor.latest, self._found.vouched_by))
