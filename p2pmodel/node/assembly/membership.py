"""This node as a member of an assembly: what it sends to the coordinator, and what follows from the answers."""

import asyncio
import time

from p2pmodel.config.sections.swarm import LOOPBACK
from p2pmodel.coordinator.assembly.messages import MAX_ROOTS, assembly_path, in_parts, update_text
from p2pmodel.coordinator.client.connection import CoordinatorConnection
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import CoordinatorMessage
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.tasks import Start
from p2pmodel.node.assembly.context import AssemblyContext
from p2pmodel.node.assembly.outcome import AssemblyFailed, AssemblySilent
from p2pmodel.node.assembly.piece_state import AssemblyPieces

ALONE_FOR = 1.5
"""Seconds without another node after which this one downloads the whole snapshot by itself."""
PATIENCE = 2
"""Multiples of `swarm.peer_timeout` in which the other nodes deliver: one that is late, or the one that takes over."""
LOST_FOR = 5.0
"""Seconds without a coordinator after which the assembly has failed."""
AHEAD = 2.0
"""Seconds of download in a slice."""
FIRST_BYTES = 4 << 20
"""Bytes of a slice before the download rate is known."""
LEAST, MOST = 4, 1024
"""Pieces demanded at a time."""


class Membership:
    """Connects to the first of the coordinators that takes part in assemblies.

    `changed` is set at every message of the coordinator, and when roots of pieces are added. `draining`: running
    downloads go on and no new one begins. `claims_all`: this node downloads all pieces by itself.
    """

    def __init__(self, context: AssemblyContext, pieces: AssemblyPieces) -> None:
        self.pieces = pieces
        self.changed = asyncio.Event()
        self.draining = False
        self.claims_all = False
        self.assembled = ""
        """The torrent's info-hash, once there is one."""
        self._context = context
        settings, refs = context.settings, context.refs
        self._connection = CoordinatorConnection(
            context.coordinators,
            assembly_path(context.digest),
            peer=settings.listen or LOOPBACK,
            timeout=settings.coordinator_timeout,
            query={"node": context.node} | ({"revision": refs[0]} if refs else {}),
            http=context.http,
            on_note=context.reporter.note,
        )
        self._last: CoordinatorMessage | None = None
        self._progressed_at = time.monotonic()

    async def join(self, start: Start) -> None:
        """Connect, and follow the coordinator as long as `start` keeps tasks. Raises AssemblyFailed if none answers."""
        start(self._connection.run(self))
        await self._connection.answered()
        self._take_message()
        start(self._follow())
        if self._connection.message is None:
            raise AssemblyFailed("the coordinator cannot assemble this snapshot")

    # -- what the coordinator sent ---------------------------------------------------------------------------

    @property
    def coordinator(self) -> Coordinator | None:
        """The coordinator; None before its first message."""
        return self._connection.coordinator

    @property
    def connected(self) -> bool:
        """Whether there is a coordinator now."""
        return self._connection.message is not None

    @property
    def peers(self) -> int:
        """Nodes in the assembly, this one included; 0 without a coordinator."""
        return self._connection.peers

    @property
    def granted(self) -> tuple[int, ...]:
        """Pieces that this node may download; a number that no piece has is ignored."""
        count = self._context.layout.piece_count
        return tuple(p for p in self._connection.grant.pieces if p < count) if self._connection.grant else ()

    def partial_torrents(self) -> set[str]:
        """URLs of the partial torrents."""
        message, coordinator = self._connection.message, self.coordinator
        if message is None or coordinator is None:
            return set()
        base = f"{coordinator.url}{assembly_path(self._context.digest)}"
        return {f"{base}/{info_hash}.torrent" for info_hash in message.partial_torrents}

    def is_alone(self) -> bool:
        """Whether no other node takes part, or none is needed."""
        return self.has_all_alone() or self._connection.alone_for(time.monotonic()) > ALONE_FOR

    def has_all_alone(self) -> bool:
        """Whether this node is the only one, and all pieces are here."""
        return self.pieces.complete and self.peers == 1

    def check_progress(self) -> None:
        """Raise AssemblyFailed if the assembly cannot go on."""
        now = time.monotonic()
        if self._connection.lost_for(now) > LOST_FOR:
            raise AssemblyFailed("the coordinator is gone")
        refused = self._connection.grant is not None and self._connection.grant.refused
        if self.pieces.in_flight or now - self._progressed_at < self._bound(refused=refused):
            return
        if refused:
            raise AssemblySilent(
                "no node delivers the remaining pieces, and the nodes have downloaded what swarm.origin_budget allows"
            )
        raise AssemblySilent("no node delivers the remaining pieces")

    def _bound(self, *, refused: bool) -> float:
        """Seconds without progress after which this node downloads the rest by itself. Unless leases are refused, that
        is after the coordinator has given the leases of a silent node to another."""
        settings = self._context.settings
        return min(settings.peer_timeout * (1 if refused else PATIENCE), settings.stall_timeout)

    async def others_joined(self) -> None:
        """Return once another node takes part."""
        while self.peers <= 1:
            await self._connection.next_change()

    async def torrent_exists(self) -> None:
        """Return once there is a torrent."""
        while not self.assembled:
            self.changed.clear()
            await self.changed.wait()

    # -- what this node sends --------------------------------------------------------------------------------

    def progressed(self) -> None:
        """Note that bytes or pieces have come."""
        self._progressed_at = time.monotonic()

    def add_roots(self, roots: dict[int, bytes]) -> None:
        """Add the roots of pieces that are here, and send them."""
        self.pieces.add_roots(roots)
        self.changed.set()
        self.send_state()

    def claim_all(self) -> None:
        """Download all pieces alone from now on, and report that to the coordinator."""
        self.claims_all = True
        self.send_state()

    def share(self) -> None:
        """Download with others again, and report that to the coordinator."""
        self.draining = self.claims_all = False
        self.send_state()

    def drain_if_alone(self) -> bool:
        """Begin no download while no other node takes part. Returns whether that is so."""
        self.draining = self.is_alone()
        return self.draining

    def send_state(self) -> None:
        """Send the state soon."""
        self._connection.changed()

    def opening(self) -> list[str]:
        """The manifest, which begins each connection."""
        self.pieces.resend_all()
        return in_parts(self._context.text)

    def message(self) -> str:
        """The demand, and roots that were not sent on this connection."""
        roots = self.pieces.take_unsent(MAX_ROOTS)
        if self.pieces.has_unsent:
            self.send_state()
        return update_text(self._demand(), self._context.layout.piece_count, roots, self._context.numbers())

    def _demand(self) -> Demand:
        pulled = self.pieces.pulled_bytes
        if self.claims_all:
            return Demand(0, from_seeders=False, want=0, origin_bytes=pulled)
        return Demand(
            self.pieces.missing,
            from_seeders=False,
            want=self._want(),
            origin_bytes=pulled,
            leased=bits_of(self.pieces.in_flight - self.pieces.here),
        )

    def _want(self) -> int:
        """Number of leases to hold: many at a time, so that slices are long."""
        if self.draining:
            return 0
        held = sum(piece not in self.pieces.here for piece in self.granted)
        mean = self._context.manifest.total_size / self._context.layout.piece_count
        size = max(int(self.pieces.rate.value() * AHEAD), FIRST_BYTES)
        target = min(max(int(size / mean), LEAST), MOST)
        return target if 2 * held <= target else held

    async def _follow(self) -> None:
        while True:
            self._take_message()
            await self._connection.next_change()

    def _take_message(self) -> None:
        message, before = self._connection.message, self._last
        if message and (before is None or (message.left, message.grant.pieces) != (before.left, before.grant.pieces)):
            self.progressed()
        if message and message.assembled:
            self.assembled = message.assembled
        self._last = message
        self.changed.set()
