"""The location and rarity of pieces: dense tables of nodes by pieces.

`_key` orders the pieces that a node could request, smallest first. Bit 15 is set for a piece that it has or has
requested. Seven bits count the neighbours with the piece. Eight random bits break ties, differently at each node.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_CLOSED, _ONE = 0x8000, 0x100
_MANY = 1 << 21
"""Cells in one vector operation."""


class PieceTables:
    """The pieces, of `sizes` bytes, of `nodes` nodes."""

    def __init__(self, nodes: int, sizes: Sequence[int], rng: np.random.Generator) -> None:
        self.sizes = np.array(sizes, dtype=np.float64)
        self.count = len(sizes)
        self._rng = rng
        self._key = rng.integers(0, _ONE, (nodes, self.count), dtype=np.uint16)
        self._hidden = np.full((nodes, self.count), 0xFFFF, dtype=np.uint16)
        """0 where neighbours see the node's piece."""
        self._got = np.zeros(nodes * self.count, dtype=np.float32)
        self._has = np.zeros((nodes, self.count), dtype=np.bool_)
        self.missing = np.full(nodes, self.count)
        self.unrequested = np.full(nodes, self.count)
        """Number of pieces that a node neither has nor has requested."""
        self.shows = np.zeros(nodes, dtype=np.bool_)
        """Whether other nodes see any piece of the node."""
        self._in_memory = [0] * nodes
        """Pieces that a node pulled over HTTP, bit p for piece p."""

    def fill(self, node: int) -> None:
        """The node has all pieces from the start."""
        self._key[node] |= _CLOSED
        self._hidden[node], self._has[node], self.shows[node] = 0, True, True
        self.missing[node] = self.unrequested[node] = 0

    def choose(self, sources: Ints, targets: Ints) -> tuple[Ints, Flags]:
        """For each pair the rarest piece that the source shows and the target may request, and whether there is one."""
        pieces, found = np.zeros(len(sources), dtype=np.int64), np.zeros(len(sources), dtype=np.bool_)
        each = max(1, _MANY // self.count)
        for begin in range(0, len(sources), each):
            part = slice(begin, begin + each)
            keys = self._key[targets[part]]
            keys ^= self._rng.integers(0, _ONE, (len(keys), 1), dtype=np.uint16)
            keys |= self._hidden[sources[part]]
            pieces[part] = keys.argmin(axis=1)
            found[part] = keys[np.arange(len(keys)), pieces[part]] < _CLOSED
        return pieces, found

    def request(self, nodes: Ints, pieces: Ints) -> None:
        """Mark pairs as requested, each once."""
        self._key[nodes, pieces] |= _CLOSED
        np.subtract.at(self.unrequested, nodes, 1)

    def withdraw(self, node: int, piece: int) -> None:
        """The request for a piece has ended without it."""
        if not self._has[node, piece] and self._key[node, piece] & _CLOSED:
            self._key[node, piece] &= _CLOSED - 1
            self.unrequested[node] += 1

    def add(self, nodes: Ints, pieces: Ints, moved: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bytes of pieces arrived. Returns the missing bytes of each pair; negative for a surplus."""
        codes = nodes * self.count + pieces
        np.add.at(self._got, codes, moved.astype(np.float32))
        return self.sizes[pieces] - self._got[codes]

    def lacks(self, nodes: Ints, pieces: Ints) -> NDArray[np.float64]:
        """Missing bytes of each pair."""
        return self.sizes[pieces] - self._got[nodes * self.count + pieces]

    def complete(self, nodes: Ints, pieces: Ints) -> tuple[Ints, Ints]:
        """Mark pairs as whole. Returns those that were not whole before."""
        codes = np.unique(nodes * self.count + pieces)
        nodes, pieces = codes // self.count, codes % self.count
        new = ~self._has[nodes, pieces]
        nodes, pieces = nodes[new], pieces[new]
        was_open = self._key[nodes, pieces] < _CLOSED
        np.subtract.at(self.unrequested, nodes[was_open], 1)
        np.subtract.at(self.missing, nodes, 1)
        self._has[nodes, pieces] = True
        self._key[nodes, pieces] |= _CLOSED
        return nodes, pieces

    def show(self, nodes: Ints, pieces: Ints) -> None:
        """From now on other nodes see these pairs."""
        self._hidden[nodes, pieces] = 0
        self.shows[nodes] = True

    def keep(self, node: int, piece: int) -> None:
        """The node pulled the piece over HTTP, and serves it over HTTP from now on."""
        self._in_memory[node] |= 1 << piece

    def count_one(self, nodes: Ints, pieces: Ints) -> Flags:
        """One more neighbour of each pair's node shows its piece. Returns whether the node may request it."""
        codes = nodes * self.count + pieces
        flat = self._key.reshape(-1)
        np.add.at(flat, codes, np.uint16(_ONE))
        return flat[codes] < _CLOSED

    def meet(self, node: int, other: int) -> None:
        """Count the pieces that `other` shows for its new neighbour `node`."""
        if self.shows[other]:
            self._key[node] += np.where(self._hidden[other], 0, _ONE).astype(np.uint16)

    def part(self, node: int, other: int) -> None:
        """Undo `meet`."""
        if self.shows[other]:
            self._key[node] -= np.where(self._hidden[other], 0, _ONE).astype(np.uint16)

    def has(self, nodes: Ints, pieces: Ints) -> Flags:
        """Whether each pair is whole."""
        return self._has[nodes, pieces]

    def shown(self, nodes: Ints, pieces: Ints) -> Flags:
        """Whether other nodes see each pair."""
        return self._hidden[nodes, pieces] == 0

    def is_scarce(self, nodes: Ints, pieces: Ints) -> Flags:
        """Whether the node lacks the piece, and no neighbour has it."""
        return self._key[nodes, pieces] < _ONE

    def scarce(self, node: int) -> int:
        """All scarce pieces of a node, bit p for piece p."""
        return int.from_bytes(np.packbits(self._key[node] < _ONE, bitorder="little").tobytes(), "little")

    def held(self, node: int) -> int:
        """All pieces that a node serves over HTTP, bit p for piece p."""
        seen = int.from_bytes(np.packbits(self._hidden[node] == 0, bitorder="little").tobytes(), "little")
        return seen | self._in_memory[node]
