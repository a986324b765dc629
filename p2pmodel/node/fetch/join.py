"""How a download joins the swarm: the pieces that this node has, leases, and the request to the engine."""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial

from p2pmodel.coordinator.client.urls import announcing_as
from p2pmodel.core import notes
from p2pmodel.core.sizes import human
from p2pmodel.core.tasks import Start, companions, in_the_end, in_thread
from p2pmodel.node.fetch.attempt import Attempt, PhaseObserver, received_over_http
from p2pmodel.node.fetch.coordinators import ask_for_leases, become_member
from p2pmodel.node.fetch.lone.files import LoneFiles
from p2pmodel.node.fetch.pieces.block_pull import planned_blocks
from p2pmodel.node.fetch.pieces.delivery_clock import DeliveryClock
from p2pmodel.node.fetch.pieces.feed import PieceFeed
from p2pmodel.node.fetch.pieces.lease_strategy import LeaseStrategy
from p2pmodel.node.fetch.pieces.leaseholder import Leaseholder, NoLeases
from p2pmodel.node.fetch.pieces.orphan_strategy import OrphanPieces, OrphanRules, OrphanStrategy
from p2pmodel.node.fetch.pieces.seeders import Seeders
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.private.membership import PublicSwarm, SwarmMembership
from p2pmodel.node.reporter import stoppable
from p2pmodel.node.snapshot.inventory import Inventory, take_inventory
from p2pmodel.node.snapshot.reuse.known_parts import KnownParts
from p2pmodel.store.file_links import FileLinks
from p2pmodel.store.publish import check_publish_space
from p2pmodel.swarm.engine import AddTorrent, SwarmTorrent


async def own_pieces(context: DownloadContext, found_before: frozenset[int] = frozenset()) -> Inventory:
    """The pieces that are here: staged, in blobs, or in other revisions, which is noted. `found_before` are not checked
    again."""
    known = await context.known_pieces() | found_before
    with stoppable(context.stats.count_checked) as count:
        found = await asyncio.to_thread(
            take_inventory, context.repo, context.metainfo, known=known, wanted=context.plan.files, on_bytes=count
        )
    size = context.stats.size(found.reused)
    if size:
        text = f"{human(size)} are the same in other revisions of {context.repo.repo} in this cache: copied"
        context.reporter.note(notes.info("reused", text, bytes=size))
    return found


def torrent_request(
    context: DownloadContext,
    inventory: Inventory,
    links: FileLinks,
    only: frozenset[int] | None,
    leases: Leaseholder | NoLeases,
) -> AddTorrent:
    """The request to join the swarm with what `inventory` has, for `only` some pieces (None: all), in the role that
    `leases` have at the trackers."""
    plan, metainfo, role = context.plan, context.metainfo, leases.role
    return AddTorrent(
        metainfo=metainfo.raw,
        save_path=context.repo.folder,
        files={index: str(links.path(i)) for i, index in enumerate(metainfo.file_indexes)},
        have=inventory.have,
        wanted=frozenset(metainfo.file_indexes[i] for i in plan.files),
        trackers=tuple(announcing_as(role, t) for t in plan.trackers) if role else plan.trackers,
        peers=plan.peers,
        web_seeds=leases.first_web_seeds(),
        pieces=only,
    )


async def join(
    context: DownloadContext, observer: PhaseObserver, seeders: Seeders, start: Start, *, headers_first: bool = False
) -> Attempt:
    """Check which pieces are here, ask for leases, and join the swarm. `start` keeps the coordinator connection.
    `headers_first`: for headers alone, if more could be found in older revisions with them."""
    plan, stats = context.plan, context.stats
    stats.begin_check()
    observer.enter("checking")
    inventory = await own_pieces(context)
    only = plan.pieces if plan.pieces is not None else (inventory.headers if headers_first else None) or None
    _begin(context, inventory, only)
    files = [context.metainfo.manifest.files[index] for index in sorted(plan.files)]
    await asyncio.to_thread(check_publish_space, context.repo, stats.size(stats.missing), files)
    async with AsyncExitStack() as undo:
        membership = await become_member(context)
        undo.push_async_callback(lambda: in_the_end(membership.close()))
        leases = await ask_for_leases(context, seeders, start, membership)
        undo.push_async_callback(lambda: in_the_end(leases.close()))
        if only is None and leases.peers == 1:
            inventory = await _alone(
                context, observer, inventory, seeders=seeders, leases=leases, membership=membership
            )
        places = zip(context.metainfo.manifest.files, inventory.staged, strict=True)
        links = await in_thread(partial(FileLinks.to, context.repo, places), FileLinks.remove)
        undo.push_async_callback(lambda: in_the_end(asyncio.to_thread(links.remove)))
        request = torrent_request(context, inventory, links, only, leases)
        torrent = await membership.add(context.engine, request)
        undo.pop_all()
    # From here to the end nothing waits, so the torrent cannot be left behind in the engine.
    orphans = _orphans(context, torrent)
    feed = _feed(context, inventory, torrent, orphans, seeders=seeders, leases=leases, membership=membership)
    context.record.begin(inventory.have)
    leases.hold(torrent, feed, durable=lambda: context.record.durable, path_of=links.path)
    return Attempt(
        context,
        observer,
        torrent=torrent,
        inventory=inventory,
        links=links,
        feed=feed,
        orphans=orphans,
        leases=leases,
        seeders=seeders,
        membership=membership,
        blocks=planned_blocks(context, inventory, None if isinstance(leases, NoLeases) else seeders, leases),
        only=only,
    )


def _begin(context: DownloadContext, inventory: Inventory, only: frozenset[int] | None) -> None:
    """Count the pieces of `inventory` as here, and `only` some of the others (None: all) as missing."""
    plan, stats = context.plan, context.stats
    late = (inventory.have - inventory.reused) & stats.missing  # came while an earlier attempt ended; mostly from peers
    stats.begin(inventory.have, mirrored=plan.mirrored, exchanged=plan.exchanged | late, only=only)
    stats.verified = set(inventory.complete & plan.files)


async def _alone(
    context: DownloadContext,
    observer: PhaseObserver,
    inventory: Inventory,
    *,
    seeders: Seeders,
    leases: Leaseholder | NoLeases,
    membership: PublicSwarm | SwarmMembership,
) -> Inventory:
    """Download large files from the seeders while this node is alone; the inventory after that. Raises AccessDenied
    when a private swarm has put this node out."""
    sources = seeders.file_sources(context.plan.zone.name)
    files = LoneFiles(context, inventory, seeders, sources, peers=lambda: leases.peers)
    if not files.worth_it:
        return inventory
    observer.enter("downloading")
    async with companions() as start:
        start(membership.watch())
        await files.run()
    inventory = await own_pieces(context, inventory.have)
    _begin(context, inventory, None)
    return inventory


def _orphans(context: DownloadContext, torrent: SwarmTorrent) -> OrphanStrategy:
    rules = OrphanRules(grace=context.plan.peer_timeout, limit=context.plan.mirror_pieces)
    count = context.metainfo.layout.piece_count
    return OrphanStrategy(torrent, OrphanPieces(count, context.engine.peer_id, rules, time.monotonic()))


def _feed(
    context: DownloadContext,
    inventory: Inventory,
    torrent: SwarmTorrent,
    orphans: OrphanStrategy,
    *,
    seeders: Seeders,
    leases: Leaseholder | NoLeases,
    membership: PublicSwarm | SwarmMembership,
) -> PieceFeed:
    plan, metainfo, stats = context.plan, context.metainfo, context.stats
    mean_piece = metainfo.manifest.total_size / max(metainfo.layout.piece_count, 1)
    return PieceFeed(
        torrent,
        metainfo,
        stats.missing,
        origin=context.origin,
        seeders=None if isinstance(leases, NoLeases) else seeders,
        orphans=orphans,
        leases=LeaseStrategy(mean_piece, connect_within=plan.connect_within),
        clock=DeliveryClock(plan.peer_timeout, time.monotonic(), lambda: plan.pace.limit if plan.pace else 0),
        received=lambda: received_over_http(context.origin, seeders, leases),
        origin_bytes=stats.size(plan.mirrored),
        on_bad_piece=leases.complain_of_seeders,
        parts=KnownParts.of(inventory.reuse, metainfo, inventory.paths, inventory.have),
        http_only=lambda: membership.http_only,
    )
