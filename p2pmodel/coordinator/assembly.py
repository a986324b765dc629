"""The birth of a torrent: nobody holds a snapshot, and those who want it pull a slice each from the mirrors.

They tell the roots of the pieces they pulled, and exchange those in chapters (`coordinator/partial_torrents`). Once
every piece has one, the torrent's trees follow from them, and the peers exchange the rest. Nobody vouches for a root:
whether all of them were right shows when each peer holds the files against the hub's hashes.

1. The leases are those of a swarm (`coordinator/leases`), where a piece is scarce only as long as it has no root and
   nobody
   who is there says that it has it.
2. Every peer has its own way to the mirrors, so no one is kept from pulling because another is quicker; what each
   takes follows from how soon it asks again.
3. Towards the end slices become small, so that all end together.
4. The first root told of a piece stays. A peer that goes leaves its roots behind: what nobody has any more is pulled
   under the leases of the torrent, which can check it.
5. Where the first to come has pulled something, a coordinator has begun anew. Who else was there is back soon and may
   have what seems to be missing, so until then everybody keeps what it holds and gets no more.

Pure: time in seconds is passed in.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from p2pmodel.coordinator.leases import Demand, Grant, Leases, pieces_of
from p2pmodel.coordinator.partial_torrents import chapter_bytes, trees_of
from p2pmodel.core.layout import Layout, piece_length_for
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.merkle import HASH, FileTree

SHARE_OF_THE_REST = 2
"""A peer is given at most the fair share of a peer, divided by this, at a time."""


BACK_WITHIN = 2.5
"""Seconds in which everybody is back: they look for a coordinator every two."""


class Assembly:
    """What is known of a snapshot that has no torrent yet; `budget` as in `Leases`."""

    def __init__(self, manifest: Manifest, *, budget: float = 0.0) -> None:
        self.manifest = manifest
        self.layout = birth_layout(manifest)
        self._all = (1 << self.layout.piece_count) - 1
        # Nobody's uplink is waited for: pieces are exchanged once there is a torrent.
        self._leases = Leases(self.layout.piece_count, manifest.total_size, budget=budget, slow=math.inf)
        self._roots: dict[int, bytes] = {}
        self._rooted = 0
        self._in_chapters = 0
        self._demands: dict[str, Demand] = {}
        self._waits_until: float | None = None
        """For those who were here before; None until somebody comes."""

    @property
    def left(self) -> int:
        """Pieces without a root."""
        return self.layout.piece_count - len(self._roots)

    @property
    def origin_bytes(self) -> int:
        """Bytes of pieces that its peers pulled from mirrors."""
        return self._leases.origin_bytes

    def tell(self, name: str, demand: Demand, roots: Mapping[int, bytes], now: float) -> None:
        """The peer `name` tells its state, and roots of pieces that it has. Those of no such piece are passed over."""
        if self._waits_until is None:
            self._waits_until = now + BACK_WITHIN if demand.origin_bytes else now
        for piece, root in roots.items():
            if 0 <= piece < self.layout.piece_count and len(root) == HASH and piece not in self._roots:
                self._roots[piece] = root
                self._rooted |= 1 << piece
        before = self._demands.get(name)
        if before and not demand.want:
            # What it gives back it has not brought.
            self._demands[name] = replace(before, want=0)
            self._pass_on(name, now)
        self._demands[name] = demand
        # Others were judged by what it said before; what it has brought under a lease is no news to the leases.
        changed = before is None or bool(demand.scarce & ~before.scarce)
        for told in self._demands if changed else (name,):
            self._pass_on(told, now)

    def leave(self, name: str) -> None:
        """The peer is gone."""
        self._demands.pop(name, None)
        self._leases.leave(name)

    def grant(self, now: float) -> Mapping[str, Grant]:
        """What every peer is to be told from now on."""
        return self._leases.grant(now)

    def trees(self) -> dict[str, FileTree]:
        """By path, the trees of all files that are not empty. KeyError before every piece has a root."""
        return trees_of(self.layout, self._roots.__getitem__)

    def next_chapter(self) -> dict[int, bytes]:
        """The roots of a chapter that is to be exchanged from now on; none of them will be in another. Empty while
        there is nobody to exchange it with, or not enough of it, or the torrent will be there as soon."""
        new = self._rooted & ~self._in_chapters
        due = chapter_bytes(self.manifest.total_size)
        mean = self.manifest.total_size / max(self.layout.piece_count, 1)
        if len(self._demands) < 2 or new.bit_count() * mean < due or self.left * mean < due / 2:
            return {}
        self._in_chapters |= new
        return {piece: self._roots[piece] for piece in pieces_of(new)}

    def _pass_on(self, name: str, now: float) -> None:
        demand, others = self._demands[name], self._rooted
        for other, theirs in self._demands.items():
            if other != name:
                others |= self._all & ~theirs.scarce
        free = (self._all & ~others).bit_count()
        most = max(-(-free // (SHARE_OF_THE_REST * len(self._demands))), 1)
        if self._waits_until is not None and now < self._waits_until:
            most = demand.leased.bit_count()
        scarce = demand.scarce & ~others
        self._leases.tell(name, replace(demand, scarce=scarce, near=False, want=min(demand.want, most)), now)


def birth_layout(manifest: Manifest) -> Layout:
    """Where the snapshot's bytes lie in the torrent that is to be born."""
    return Layout([(file.path, file.size) for file in manifest.files], piece_length_for(manifest.total_size))
