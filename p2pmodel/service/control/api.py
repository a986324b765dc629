"""The operations of the control API without HTTP: plain values in, frozen views out, errors of the error tree."""

import asyncio
import os
import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress

from p2pmodel import __version__
from p2pmodel.coordinator.client.cluster_views import RolloutSummaries, SwarmViews
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.core.content.names import Reference, RepoId, check_name
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.connections import PeerConnection, busiest
from p2pmodel.core.progress.diagnosis import Diagnosis, HostBounds, explain
from p2pmodel.core.progress.progress import FileProgress
from p2pmodel.core.progress.views import (
    CatalogView,
    FirstPiecesView,
    FollowView,
    LimitsView,
    NodeView,
    PiecesView,
    RateLimits,
    Readiness,
    RemovedSnapshot,
    RolloutSummary,
    ScrubView,
    SnapshotView,
    SpaceView,
    SwarmView,
    TransferView,
    matching,
)
from p2pmodel.core.tasks import Version
from p2pmodel.errors import InvalidInput, NotFound
from p2pmodel.node.fetch.pieces.first_requests import FirstRequests
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.follow.follower import Follower
from p2pmodel.node.host_stats import disk_pressure, link_speed
from p2pmodel.node.measure.bench import measurement
from p2pmodel.node.node import Node
from p2pmodel.node.snapshot.cache_views import CacheSummary, listed, summarize, unready
from p2pmodel.node.snapshot.target import TorrentTarget, parse_target
from p2pmodel.node.space_keeper import SpaceKeeper
from p2pmodel.origin.mirrors.mirror import MirrorCounters, MirrorStatus
from p2pmodel.service.control.bodies import ChangeBody, EngineBody, FirstBody, LimitsBody, StartBody
from p2pmodel.store.snapshots.snapshot_list import find_commit
from p2pmodel.trust.signatures.statement import SignedStatement

DIAGNOSIS_SECONDS = 1.0
MOST_OTHERS = 50
MOST_OF_EACH = 20
"""Connections listed for each transfer when all transfers are listed."""


class NodeApi:
    """The operations on one node; `hub` is the URL of its hub endpoint, `peer` where peers reach it ("": at the
    engine's address), `follower` has its follow lists, `keeper` keeps its budget."""

    def __init__(
        self,
        node: Node,
        hub: str | None = None,
        peer: str = "",
        *,
        follower: Follower | None = None,
        keeper: SpaceKeeper | None = None,
    ) -> None:
        self._node = node
        self._keeper = keeper
        self._follower = follower
        self._peer = peer
        self._hub = hub
        self._cache = node.context.cache
        coordinators, timeout = configured(node.settings), node.settings.swarm.coordinator_timeout
        self._rollouts = RolloutSummaries(coordinators, timeout)
        self._catalogs = SwarmViews(coordinators, timeout)
        self._first = FirstRequests(node.context.growing)

    @property
    def version(self) -> Version:
        """Grows with every change of a transfer."""
        return self._node.version

    def space(self) -> SpaceView:
        """The space of the cache."""
        return self._keeper.view if self._keeper else SpaceView()

    def node(self) -> NodeView:
        """The node itself."""
        address = self._peer or str(ListenAddress(*self._node.context.engine.address))
        return NodeView(__version__, str(self._cache.root), address, os.getpid(), self._hub)

    async def look(self) -> None:
        """As `Node.look`: call it before a view of a transfer is sent."""
        await self._node.look()

    def transfers(self) -> tuple[TransferView, ...]:
        """All transfers, oldest first."""
        return self._node.transfers()

    def transfer(self, ident: str) -> TransferView:
        """One transfer. Raises NotFound."""
        return self._node.transfer(ident)

    async def start(self, body: StartBody) -> TransferView:
        """Start or resume the transfer of a snapshot. Raises InvalidInput, and the errors of `Node.start`."""
        target = _target(body)
        peers = [ListenAddress.parse(peer) for peer in body.peers]
        request = FetchRequest(
            target,
            tuple(body.include),
            tuple(body.exclude),
            peers=tuple((peer.host, peer.port) for peer in peers),
            names=tuple(map(check_name, body.names)),
            fresh=body.fresh,
        )
        return await self._node.start(request, priority=body.priority)

    def pieces(self, ident: str) -> PiecesView:
        """The state of each piece of a transfer. Raises NotFound."""
        found = self._node.monitor(ident).pieces()
        fields = (found.have, found.from_cache, found.from_mirrors, found.availability)
        return PiecesView(ident, found.count, *(b64encode(field).decode() for field in fields))

    def files(self, ident: str) -> tuple[FileProgress, ...]:
        """The files of a transfer; none before it knows them. Raises NotFound."""
        return self._node.monitor(ident).file_progress()

    async def why(self, ident: str) -> Diagnosis:
        """What limits the rate of a transfer; measures an active one for a second. Raises NotFound."""
        before = self._node.transfer(ident)
        began = time.monotonic()
        if before.state == "active":
            await asyncio.sleep(DIAGNOSIS_SECONDS)
        rates = [standing.rate for standing in await self.mirrors() if standing.rate is not None]
        around = HostBounds(
            limit=self._node.limits.download_now,
            link=await asyncio.to_thread(link_speed),
            mirrors=sum(rates) if rates else None,
            disk_pressure=await asyncio.to_thread(disk_pressure),
            others=sum(view.progress.download_rate for view in self._node.transfers() if view.id != ident),
        )
        return explain(before, self._node.transfer(ident), max(time.monotonic() - began, 1e-3), around)

    async def change(self, ident: str, body: ChangeBody) -> TransferView:
        """Change a transfer's priority. Raises NotFound."""
        return await self._node.prioritise(ident, body.priority)

    def engine(self, ident: str, body: EngineBody) -> TransferView:
        """Record the report of an inference engine. Raises InvalidInput, NotFound, Conflict."""
        return self._node.set_engine(ident, body.engine, body.seconds)

    def first(self, ident: str, body: FirstBody) -> FirstPiecesView:
        """Request places of a transfer's files before all others. Raises InvalidInput, NotFound."""
        view = self._node.transfer(ident)
        found = self._node.found(Reference(RepoId(view.repo), view.commit))
        if found is None:
            return FirstPiecesView(in_swarm=False, pieces=0)
        return self._first.request(self._cache.repo(found.manifest.repo), found.manifest, body.ranges)

    async def pause(self, ident: str) -> TransferView:
        """Stop downloading and seeding a transfer until it is resumed. Raises NotFound."""
        return await self._node.pause(ident)

    async def resume(self, ident: str) -> TransferView:
        """Resume a transfer that is paused or has failed. Raises NotFound."""
        return await self._node.resume(ident)

    async def cancel(self, ident: str) -> TransferView:
        """Remove a transfer, but not its files. Returns its last view. Raises NotFound."""
        view = self._node.transfer(ident)
        await self._node.cancel(ident)
        return view

    async def remove(self, ident: str) -> RemovedSnapshot:
        """Remove a transfer, and its snapshot from the cache. Raises NotFound."""
        view = self._node.transfer(ident)
        return await self._remove(Reference.parse(view.repo, revision=view.commit))

    async def snapshots(self) -> tuple[SnapshotView, ...]:
        """The snapshots in the cache."""
        return tuple(await asyncio.to_thread(listed, self._cache))

    async def remove_snapshot(self, ref: str) -> RemovedSnapshot:
        """Remove the snapshot `ref` (REPO@REV) from the cache. Raises NotFound, InvalidInput."""
        reference = Reference.parse(ref)
        views = matching(self._node.transfers(), reference)
        commit = views[0].commit if views else await asyncio.to_thread(self._resolve, reference)
        if commit is None:
            raise NotFound(f"{reference} is not in this cache", hint="list its snapshots with 'p2pmodel ls'")
        repo = RepoId(views[0].repo) if views else (await asyncio.to_thread(self._cache.known, reference.repo)).repo
        return await self._remove(Reference(repo, commit))

    async def swarms(self) -> tuple[SwarmView, ...]:
        """The number of peers of each transfer, and its busiest connections."""
        return tuple([await self._swarm(view) for view in self._node.transfers()])

    async def connections(self, ident: str) -> tuple[PeerConnection, ...]:
        """The peer connections of a transfer, busiest first. Raises NotFound."""
        return busiest(await self._node.monitor(ident).connections())

    async def mirrors(self) -> tuple[MirrorStatus, ...]:
        """The configured mirrors in the order of use, with the recorded state of each."""
        live = self._node.context.origins.statuses()
        known = await measurement(self._node.settings).recorded()
        return tuple(live.get(standing.endpoint, standing) for standing in known)

    async def used_mirrors(self) -> tuple[MirrorStatus, ...]:
        """`mirrors`, then the mirrors in use that only torrents name, at most MOST_OTHERS."""
        configured = await self.mirrors()
        live = dict(self._node.context.origins.statuses())
        for standing in configured:
            live.pop(standing.endpoint, None)
        return (*configured, *list(live.values())[:MOST_OTHERS])

    def mirror_counters(self) -> Mapping[str, MirrorCounters]:
        """Counters of each mirror since the node started, by name; includes mirrors that only torrents name."""
        return self._node.context.origins.counters()

    async def catalog(self) -> tuple[CatalogView, ...]:
        """The swarms in the catalogs of the coordinators, busiest first; empty if none of them answers."""
        return await self._catalogs.look()

    async def rollouts(self) -> tuple[RolloutSummary, ...]:
        """The roll-outs of the coordinators, open and latest first; empty if none of them answers."""
        return await self._rollouts.look()

    async def cache_summary(self) -> CacheSummary:
        """Size, free space and number of snapshots of the cache."""
        return await asyncio.to_thread(summarize, self._cache)

    async def ready(self, model: str | None) -> Readiness:
        """Whether the requested files of the snapshot REPO@REV are complete and verified. Raises InvalidInput."""
        if model is None:
            return Readiness("", ready=True)
        ref = Reference.parse(model)
        await self.look()
        commit = await asyncio.to_thread(self._resolve, ref)
        views = [view for view in matching(self._node.transfers(), ref) if commit is None or view.commit == commit]
        if views and not views[0].complete:
            return Readiness(str(ref), ready=False, reason=_why_not(views[0]))
        selections = self._node.selections(views[0].id) if views else ()
        repo = await asyncio.to_thread(self._cache.known, ref.repo)
        reason = await asyncio.to_thread(unready, repo, commit, selections)
        return Readiness(str(ref), not reason, reason)

    def scrub(self) -> ScrubView:
        """The background check of the cache."""
        return self._node.scrub

    def follow_lists(self) -> tuple[FollowView, ...]:
        """The follow lists, in the order of the settings."""
        return self._follower.views() if self._follower else ()

    def limits(self) -> LimitsView:
        """The rate limits for peers."""
        return self._node.limits

    def limit(self, body: LimitsBody) -> LimitsView:
        """Set the rate limits until the node restarts."""
        return self._node.limit(RateLimits(body.upload, body.download))

    async def _swarm(self, view: TransferView) -> SwarmView:
        progress = view.progress
        connections: tuple[PeerConnection, ...] = ()
        with suppress(NotFound):  # it was cancelled meanwhile
            connections = busiest(await self._node.monitor(view.id).connections(), MOST_OF_EACH)
        rates = progress.download_rate, progress.upload_rate
        return SwarmView(
            view.id, view.repo, progress.peers, *rates, progress.from_peers, progress.uploaded, connections
        )

    async def _remove(self, ref: Reference) -> RemovedSnapshot:
        freed = await self._node.remove(ref.repo, ref.revision)
        return RemovedSnapshot(str(ref.repo), ref.revision, freed)

    def _resolve(self, ref: Reference) -> str | None:
        return find_commit(self._cache.known(ref.repo), ref.revision)


def _why_not(view: TransferView) -> str:
    if view.error is not None:
        return view.error.message
    progress = view.progress
    return f"it is {view.state}: {progress.phase}, {progress.done} of {progress.total} bytes are verified"


def _target(body: StartBody) -> Reference | TorrentTarget:
    if (body.torrent is None) == (body.target == ""):
        raise InvalidInput("a transfer needs either a target or a torrent")
    if body.torrent is not None:
        if body.revision is not None:
            raise InvalidInput("a revision needs a repository, and cannot be combined with a torrent")
        signatures = tuple(SignedStatement(each.statement, each.signature) for each in body.signatures)
        return TorrentTarget("the torrent", body.torrent, signatures)
    target = parse_target(body.target, body.revision)
    if isinstance(target, TorrentTarget) and not target.source.lower().startswith(("magnet:", "http://", "https://")):
        # For its clients the daemon reads no files outside its cache.
        raise InvalidInput("a .torrent file must be sent as 'torrent', not as a path")
    return target
