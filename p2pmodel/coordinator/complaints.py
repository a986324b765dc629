"""Complaints: leaseholders report pieces that failed their check, and the peer that sent them is told.

A peer with a damaged disk does not notice that others ban it. The coordinator passes complaints on in the answer to the
peer's next announce, as the `warning message` of BEP 3, which other clients show to their users. A complaint proves
nothing and changes nothing here: the accused peer reads the piece from its own disk and judges by itself.
"""

import time
from collections.abc import Callable

from cachetools import TTLCache

from p2pmodel.coordinator.leases.demand import Complaint
from p2pmodel.coordinator.tracker.announce_texts import MOST_PIECES
from p2pmodel.coordinator.tracker.codec import pack_address

KEPT = 600.0
"""Seconds for which a complaint is passed on."""
MOST_PEERS = 4096
"""Bound on accused peers; the oldest complaints go first."""


class Complaints:
    """The complaints of one coordinator. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pieces: TTLCache[tuple[bytes, bytes], tuple[int, ...]] = TTLCache(MOST_PEERS, KEPT, timer=clock)

    def add(self, info_hash: bytes, complaint: Complaint) -> None:
        """Keep a complaint about the torrent with this 20-byte info-hash. An address that is none is ignored."""
        try:
            key = info_hash, pack_address(complaint.peer)
        except ValueError:
            return
        known = self._pieces.get(key, ())
        if complaint.piece not in known and len(known) < MOST_PIECES:
            self._pieces[key] = (*known, complaint.piece)

    def about(self, info_hash: bytes, host: bytes) -> tuple[int, ...]:
        """The pieces that the peer at the packed address `host` is said to have sent wrong."""
        return self._pieces.get((info_hash, host), ())
