"""The tracker: the real choice of peers for each announce, and the times of the announces."""

import heapq
import random

from p2pmodel.coordinator.tracker.announces import TrackedSwarms
from p2pmodel.coordinator.tracker.sources import Role
from p2pmodel.coordinator.tracker.tracked_swarm import Announce, Event

INTERVAL, FIRST_INTERVAL = 30.0, 4.0
"""Seconds between announces, and between the first two in a large swarm."""
_HASH = b"simulated-info-hash!"
_PORT = 6881
_NUMWANT = 200
"""libtorrent's num_want."""


class SimulatedTracker:
    """Announces of every node."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self._swarms = TrackedSwarms(lambda: self.now, random.Random(seed), interval=INTERVAL)
        self._known: set[int] = set()
        self._due: list[tuple[float, int]] = []

    def plan(self, node: int, when: float) -> None:
        """The node announces itself at that time."""
        heapq.heappush(self._due, (when, node))

    def due(self, now: float) -> list[int]:
        """The nodes that announce now. Each announces again later."""
        found = []
        while self._due and self._due[0][0] <= now:
            found.append(heapq.heappop(self._due)[1])
        for node in found:
            self.plan(node, now + (INTERVAL if node in self._known else FIRST_INTERVAL))
            self._known.add(node)
        return found

    def announce(self, node: int, now: float, *, left: int, zone: int, role: Role, event: Event) -> list[int]:
        """The peers that the node gets."""
        self.now = now
        request = Announce(
            _HASH, b"%020d" % node, _PORT, left, event, numwant=_NUMWANT, zone=b"zone%d" % zone, role=role
        )
        peers = self._swarms.announce(request, (0x0A000000 + node).to_bytes(4, "big")).peers
        return [int.from_bytes(peer.endpoints[0][:4], "big") - 0x0A000000 for peer in peers]
