"""Assembly of a torrent: no peer holds a snapshot, and each peer that wants it downloads a slice from the mirrors.

Peers send the roots of the pieces they downloaded, and exchange those pieces in partial torrents
(`coordinator/partial_torrents`). Once every piece has a root, the torrent's trees follow from the roots, and the peers
exchange the rest. The roots are not verified here: whether all of them were right shows when each peer compares its
files with the hub's hashes.

1. The leases are those of a swarm (`coordinator/leases`). A piece is scarce only as long as it has no root and no
   present peer reports that it has it. Such a report counts for `CLAIM_FOR` seconds, and longer only while roots come
   from that peer: it may hash what it has, but a peer that sends none does not stop the others.
2. Every peer has its own link to the mirrors, so a fast peer does not exclude a slow one. The number of pieces that a
   peer downloads follows from how soon it asks again.
3. Near the end slices become small, so that all peers end together.
4. The first root of a piece stays. A peer that leaves does not take its roots away: pieces that no peer has any more
   are downloaded under the leases of the torrent, which verifies them.
5. If the first peer already has bytes from mirrors, the coordinator has restarted. The other peers reconnect soon and
   may have what seems to be missing, so until then every peer keeps its leases and gets no more.

Pure: time in seconds is passed in.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from p2pmodel.coordinator.assembly.partial_torrents import assembly_layout, partial_torrent_bytes, trees_of
from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.leases import Leases
from p2pmodel.core.content.bitfield import pieces_of
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.merkle import HASH, FileTree

SHARE_OF_THE_REST = 2
"""A peer is granted at most an equal share of the free pieces, divided by this, at a time."""
CLAIM_FOR = 20.0
"""Seconds without a new root after which the pieces that a peer reports to have are scarce again. They do not run while
it is alone."""
BACK_WITHIN = 2.5
"""Seconds in which all peers have reconnected: they try every two."""


class Assembly:
    """State of a snapshot that has no torrent yet; `budget` as in `Leases`."""

    def __init__(self, manifest: Manifest, *, budget: float = 0.0) -> None:
        self.manifest = manifest
        self.layout = assembly_layout(manifest)
        self._all = (1 << self.layout.piece_count) - 1
        # No uplink delays the others here: pieces are exchanged once there is a torrent.
        longest = self.layout.piece_length
        self._leases = Leases(
            self.layout.piece_count, manifest.total_size, budget=budget, longest=longest, slow=math.inf
        )
        self._roots: dict[int, bytes] = {}
        self._with_root = 0
        self._in_partial_torrents = 0
        self._addresses: dict[str, str] = {}
        self._claims_until: dict[str, float] = {}
        """By peer: until when the pieces count that it reports to have."""
        self._credible: frozenset[str] = frozenset()
        """The peers with reports that count."""
        self._demands: dict[str, Demand] = {}
        self._waits_until: float | None = None
        """Until when peers of before the restart are expected; None until the first peer comes."""

    @property
    def left(self) -> int:
        """Pieces without a root."""
        return self.layout.piece_count - len(self._roots)

    @property
    def origin_bytes(self) -> int:
        """Bytes of pieces that the peers downloaded from mirrors."""
        return self._leases.origin_bytes

    def update(self, name: str, demand: Demand, roots: Mapping[int, bytes], now: float, *, address: str = "") -> None:
        """Take the state of the peer `name` at `address`, and the roots of its pieces.

        Roots that fit no piece are ignored.
        """
        if self._waits_until is None:
            self._waits_until = now + BACK_WITHIN if demand.origin_bytes else now
        known = len(self._roots)
        for piece, root in roots.items():
            if 0 <= piece < self.layout.piece_count and len(root) == HASH and piece not in self._roots:
                self._roots[piece] = root
                self._with_root |= 1 << piece
        self._addresses[name] = address
        before = self._demands.get(name)
        if before is None and len(self._demands) == 1:
            self._believe(next(iter(self._demands)), now)  # alone until now, it had no reason to report
        if before is None or len(self._roots) > known:
            self._believe(name, now)
        if before and not demand.want:
            # Pieces that it returns were not downloaded.
            self._demands[name] = replace(before, want=0)
            self._pass_on(name, now)
        self._demands[name] = demand
        # Other peers' demands depend on what this one had before. A piece that came under a lease changes nothing.
        changed = before is None or bool(demand.scarce & ~before.scarce)
        for peer in self._demands if changed else (name,):
            self._pass_on(peer, now)

    def leave(self, name: str) -> None:
        """Remove a peer that has gone."""
        self._demands.pop(name, None)
        self._addresses.pop(name, None)
        self._claims_until.pop(name, None)
        self._credible -= {name}
        self._leases.leave(name)

    def grant(self, now: float) -> Mapping[str, Grant]:
        """Every peer's grant from now on, by name."""
        if any(self._claims_until[name] <= now for name in self._credible):
            self._credible = frozenset(name for name, end in self._claims_until.items() if end > now)
            for name in self._demands:
                self._pass_on(name, now)
        return self._leases.grant(now)

    def trees(self) -> dict[str, FileTree]:
        """Merkle trees of all files that are not empty, by path. KeyError before every piece has a root."""
        return trees_of(self.layout, self._roots.__getitem__)

    def next_partial_torrent(self) -> dict[int, bytes]:
        """Roots of a new partial torrent, by piece; none of them will be in another.

        Empty while there are no two peers, or too few new roots, or while the torrent will exist as soon.
        """
        new = self._with_root & ~self._in_partial_torrents
        due = partial_torrent_bytes(self.manifest.total_size)
        mean = self.manifest.total_size / max(self.layout.piece_count, 1)
        if len(self._demands) < 2 or new.bit_count() * mean < due or self.left * mean < due / 2:
            return {}
        self._in_partial_torrents |= new
        return {piece: self._roots[piece] for piece in pieces_of(new)}

    def _believe(self, name: str, now: float) -> None:
        self._claims_until[name] = now + CLAIM_FOR
        self._credible |= {name}

    def _pass_on(self, name: str, now: float) -> None:
        """Update the leases with the demand of `name`, reduced to what no peer has."""
        demand, held = self._demands[name], self._with_root
        for other, theirs in self._demands.items():
            if other != name and other in self._credible:
                held |= self._all & ~theirs.scarce
        free = (self._all & ~held).bit_count()
        most = max(-(-free // (SHARE_OF_THE_REST * len(self._demands))), 1)
        if self._waits_until is not None and now < self._waits_until:
            most = demand.leased.bit_count()
        reduced = replace(demand, scarce=demand.scarce & ~held, from_seeders=False, want=min(demand.want, most))
        self._leases.update(name, reduced, now, address=self._addresses[name])
