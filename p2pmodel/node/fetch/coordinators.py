"""What a download asks of the coordinators before it joins the swarm: leases, and admission to a private swarm."""

from p2pmodel.coordinator.client.connection import CoordinatorConnection
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import lease_path
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.tasks import Start
from p2pmodel.node.fetch.pieces.leaseholder import Leaseholder
from p2pmodel.node.fetch.pieces.no_leases import NoLeases
from p2pmodel.node.fetch.pieces.seeders import Seeders
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.private.membership import PublicSwarm, SwarmMembership


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
    """Connect to the coordinators for leases, if pieces are missing. `start` keeps the connection. In a private swarm
    the seeders are asked with the certificate of this node."""
    plan, missing = context.plan, context.stats.missing
    if not missing or not plan.coordinators:
        return NoLeases()
    if membership.tls is not None:
        seeders.ask_as(membership.tls)
    connection = CoordinatorConnection(
        plan.coordinators,
        lease_path(context.metainfo.info_hash),
        peer=context.listen_address,
        timeout=plan.coordinator_timeout,
        query={"node": plan.node},
        http=plan.http,
        on_note=context.reporter.note,
    )
    leaseholder = Leaseholder(
        connection,
        seeders,
        piece_count=context.metainfo.layout.piece_count,
        waiting=Demand(bits_of(missing), from_seeders=False, want=0),
        numbers=plan.numbers,
    )
    await leaseholder.begin(start)
    return leaseholder
