"""What a download asks of the coordinators before it joins the swarm: leases, and admission to a private swarm."""

from typing import TYPE_CHECKING

from p2pmodel.coordinator.client.connection import CoordinatorConnection
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import lease_path
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.tasks import Start, in_the_end
from p2pmodel.node.fetch.lone.web_seeds import LoneWebSeeds
from p2pmodel.node.fetch.pieces.leaseholder import Leaseholder, NoLeases
from p2pmodel.node.fetch.pieces.seeders import Seeders
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.private.membership import PublicSwarm, SwarmMembership

if TYPE_CHECKING:
    from p2pmodel.node.fetch.pieces.zone_exchange import ZoneExchange


async def become_member(context: DownloadContext) -> PublicSwarm | SwarmMembership:
    """Join the swarm of the torrent, if it is private. Raises AccessDenied or Unavailable."""
    plan = context.plan
    if plan.metainfo.authority is None:
        return PublicSwarm()
    membership = SwarmMembership(plan.coordinators, context.reporter)
    hosts = (context.engine.address[0], *plan.advertised)
    await membership.join(plan.metainfo, hosts, timeout=plan.coordinator_timeout, http=plan.http)
    return membership


async def ask_for_leases(
    context: DownloadContext, seeders: Seeders, start: Start, membership: PublicSwarm | SwarmMembership
) -> Leaseholder | NoLeases:
    """Connect to the coordinators for leases, if pieces are missing, or blocks. `start` keeps the connection. In a
    private swarm the seeders are asked with the certificate of this node."""
    plan, missing = context.plan, context.stats.missing
    if not (missing or plan.blocks) or not plan.coordinators:
        return NoLeases()
    if membership.tls is not None:
        seeders.ask_as(membership.tls)
    zones = None if membership.private else await _zone_exchange(context)
    connection = CoordinatorConnection(
        plan.coordinators,
        lease_path(context.metainfo.info_hash),
        peer=context.listen_address,
        timeout=plan.coordinator_timeout,
        query={"node": plan.node, **(zones.query if zones else {})},
        http=plan.http,
        on_note=context.reporter.note,
    )
    leaseholder = Leaseholder(
        connection,
        seeders,
        piece_count=context.metainfo.layout.piece_count,
        waiting=Demand(bits_of(missing), from_seeders=False, want=0),
        numbers=plan.numbers,
        zones=zones,
        may_leave=context.may_leave and not plan.blocks,  # blocks that are here would be counted twice
        web_seeds=LoneWebSeeds(
            lambda: seeders.web_seeds(context.metainfo.manifest, plan.zone.name),
            limited=lambda: plan.pace is not None and bool(plan.pace.limit),
        ),
    )
    try:
        await leaseholder.begin(start)
    except BaseException:
        await in_the_end(leaseholder.close())
        raise
    return leaseholder


async def _zone_exchange(context: DownloadContext) -> "ZoneExchange | None":
    """The exchange with other zones, serving; None for a node without a zone."""
    plan = context.plan
    if not plan.zone.name:
        return None
    from p2pmodel.node.fetch.pieces.zone_exchange import ZoneExchange  # noqa: PLC0415 - imports a web server

    zones = ZoneExchange(
        plan.metainfo,
        plan.zone.name,
        upload=plan.zone.upload,
        download=plan.pace,
        http=plan.http,
        note=context.reporter.note,
    )
    await zones.open(context.engine.address[0], plan.zone.port, plan.zone.server)
    return zones
