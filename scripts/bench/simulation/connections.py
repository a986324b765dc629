"""The swarm's connections: the linked nodes, and the requests over each link.

A connection is two edges, 2k from one end and 2k + 1 back. Requested pieces come over an edge in order, one after the
other, as from libtorrent: every peer is unchoked, and requests reach `AHEAD` seconds ahead.
"""

import numpy as np
from numpy.typing import NDArray

from scripts.bench.simulation.links import UNFAIR
from scripts.bench.simulation.piece_tables import PieceTables

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

AHEAD = 3.0
"""Seconds of outstanding requests at a peer: our setting, which is libtorrent's default."""
MOST_AHEAD = 8 << 20
"""Most bytes of outstanding requests: max_out_request_queue blocks of 16 KiB."""
_DEEPEST = 32
_TURNS = 4
"""Attempts of an edge to choose in a step, when two edges chose the same piece."""
MOST_LINKS = 120


class Connections:
    """Edges between `nodes` nodes."""

    def __init__(self, nodes: int, tables: PieceTables, piece_length: int, rng: np.random.Generator) -> None:
        self._tables = tables
        self._rng = rng
        self._piece_length = piece_length
        self._depth = int(np.clip(MOST_AHEAD // piece_length, 1, _DEEPEST))
        self.count = 0
        self.degree = np.zeros(nodes, dtype=np.int64)
        self._peer = np.zeros((nodes, MOST_LINKS), dtype=np.int64)
        self._out = np.zeros((nodes, MOST_LINKS), dtype=np.int64)
        """Edges from a node; edge ^ 1 is the reverse."""
        self._known: set[tuple[int, int]] = set()
        self._reserve(1024)

    def _reserve(self, size: int) -> None:
        def longer(name: str, dtype: type, *more: int) -> None:
            new = np.zeros((size, *more), dtype=dtype)
            if self.count:
                new[: self.count] = getattr(self, name)[: self.count]
            setattr(self, name, new)

        longer("source", np.int64)
        longer("target", np.int64)
        longer("weight", np.float64)
        longer("_requested", np.int8)
        longer("_queue", np.int32, self._depth)
        longer("_dry", np.bool_)
        longer("_credit", np.float64)
        longer("_speed", np.float64)

    source: Ints
    target: Ints
    weight: Floats
    """Weight of each edge's flow where it shares a link."""
    _requested: NDArray[np.int8]
    """Number of pieces requested over each edge."""
    _queue: NDArray[np.int32]
    _dry: NDArray[np.bool_]
    """Whether there was no piece to request, and none has appeared since."""
    _credit: Floats
    """Bytes that have arrived of the piece after the whole one."""
    _speed: Floats

    # -- links -----------------------------------------------------------------------------------------------

    def connect(self, one: int, other: int) -> bool:
        """Link two nodes. False if they are linked already or have too many links."""
        pair = (min(one, other), max(one, other))
        if one == other or pair in self._known or max(self.degree[one], self.degree[other]) >= MOST_LINKS:
            return False
        self._known.add(pair)
        if self.count + 2 > len(self.source):
            self._reserve(2 * len(self.source))
        for source, target in (pair, pair[::-1]):
            edge, place = self.count, self.degree[source]
            self.source[edge], self.target[edge], self.weight[edge] = source, target, self._rng.uniform(*UNFAIR)
            self._peer[source, place], self._out[source, place] = target, edge
            self.degree[source] += 1
            self._tables.meet(target, source)
            self.count += 1
        return True

    def leave(self, node: int) -> None:
        """A node dies: its links end, and the pieces requested from it are requested from others."""
        edges = self._out[node, : self.degree[node]].copy()
        for edge, peer in zip(edges, self._peer[node, : self.degree[node]].copy(), strict=True):
            self._drop_requests(edge)
            self._requested[edge ^ 1] = 0
            self._dry[[edge, edge ^ 1]] = True
            self._forget(peer, node)
            self._tables.part(peer, node)
            self._known.discard((min(node, peer), max(node, peer)))
            self._dry[self._in(peer)] = False
        self.degree[node] = 0

    def vary(self) -> None:
        """Share links anew: no flow stays quicker than others for a whole run."""
        self.weight[: self.count] = self._rng.uniform(*UNFAIR, self.count)

    def _drop_requests(self, edge: int) -> None:
        target = self.target[edge]
        for piece in self._queue[edge, : self._requested[edge]]:
            self._tables.withdraw(target, piece)
        self._requested[edge] = 0

    def _forget(self, node: int, other: int) -> None:
        last = self.degree[node] - 1
        place = int(np.flatnonzero(self._peer[node, : last + 1] == other)[0])
        self._peer[node, place], self._out[node, place] = self._peer[node, last], self._out[node, last]
        self.degree[node] = last

    def _in(self, node: int) -> Ints:
        return self._out[node, : self.degree[node]] ^ 1

    # -- requests --------------------------------------------------------------------------------------------

    def request(self) -> None:
        """Every edge with a free slot requests the rarest piece, one in each turn."""
        edges = np.flatnonzero((self._requested[: self.count] < self._depth) & ~self._dry[: self.count])
        for _ in range(_TURNS):
            slots = np.maximum(1.0, self._speed[edges] * (AHEAD / self._piece_length))
            edges = edges[self._requested[edges] + 1 <= slots]
            if not len(edges):
                return
            self._rng.shuffle(edges)
            edges = self._choose(edges)
            edges = edges[self._requested[edges] < self._depth]
        # Edges that lost all turns try again in the next step.

    def _choose(self, edges: Ints) -> Ints:
        """Returns the edges that may choose again: they got a piece, or the piece went to another edge of the node."""
        pieces, found = self._tables.choose(self.source[edges], self.target[edges])
        self._dry[edges[~found]] = True
        edges, pieces = edges[found], pieces[found]
        _, first = np.unique(self.target[edges] * self._tables.count + pieces, return_index=True)
        winners, won = edges[first], pieces[first]
        self._queue[winners, self._requested[winners]] = won
        self._requested[winners] += 1
        self._tables.request(self.target[winners], won)
        return edges

    def help_out(self) -> None:
        """Idle edges join in pieces that are slow over another edge, or that are the last ones."""
        edges = np.flatnonzero((self._requested[: self.count] == 0) & self._dry[: self.count])
        edges = edges[(self._tables.missing[self.target[edges]] > 0) & self._tables.shows[self.source[edges]]]
        for begin in range(0, len(edges), 1 << 15):
            self._join(edges[begin : begin + (1 << 15)])

    def _join(self, edges: Ints) -> None:
        targets = self.target[edges]
        widest = int(self.degree[targets].max(initial=0))
        others = self._out[targets, :widest] ^ 1
        busy = (np.arange(widest) < self.degree[targets][:, None]) & (self._requested[others] > 0)
        pieces = self._queue[others, 0]
        shown = self._tables.shown(np.broadcast_to(self.source[edges][:, None], others.shape), pieces)
        rest = self._tables.lacks(np.broadcast_to(targets[:, None], others.shape), pieces)
        slow = rest / np.maximum(self._speed[others], 1.0)
        slow[~(busy & shown & (rest > 0) & ((slow > AHEAD) | (self._tables.unrequested[targets] == 0)[:, None]))] = 0.0
        rows = np.arange(len(edges))
        best = slow.argmax(axis=1)
        useful = slow[rows, best] > 0
        self._queue[edges[useful], 0] = pieces[rows, best][useful]
        self._requested[edges[useful]] = 1

    # -- flows -----------------------------------------------------------------------------------------------

    def flowing(self) -> Ints:
        """The edges with requests."""
        return np.flatnonzero(self._requested[: self.count])

    def carry(self, edges: Ints, moved: Floats, seconds: float) -> tuple[Ints, Ints]:
        """`moved` bytes arrived over `edges`. Returns the nodes and pieces that are whole now."""
        targets, heads = self.target[edges], self._queue[edges, 0].astype(np.int64)
        self._speed[edges] = moved / seconds
        rest = self._tables.add(targets, heads, moved + self._credit[edges])
        self._credit[edges] = 0.0
        ended = rest <= 0.5
        over, whole = edges[ended], (targets[ended], heads[ended])
        codes, first = np.unique(whole[0] * self._tables.count + whole[1], return_index=True)
        self._credit[over[first]] = np.maximum(-rest[ended][first], 0.0)
        while len(over):
            self._queue[over, :-1] = self._queue[over, 1:]
            self._requested[over] -= 1
            over = over[self._requested[over] > 0]
            stale = self._tables.lacks(self.target[over], self._queue[over, 0].astype(np.int64)) <= 0.5
            over = over[stale]
        return codes // self._tables.count, codes % self._tables.count

    def show(self, nodes: Ints, pieces: Ints) -> None:
        """These nodes show these pieces: neighbours without one can request it."""
        self._tables.show(nodes, pieces)
        widest = int(self.degree[nodes].max(initial=0))
        there = np.arange(widest) < self.degree[nodes][:, None]
        peers = self._peer[nodes, :widest][there]
        spread = np.broadcast_to(pieces[:, None], there.shape)[there]
        useful = self._tables.count_one(peers, spread)
        self._dry[self._out[nodes, :widest][there][useful]] = False
