"""Which piece is where, and how rare: dense tables of nodes by pieces.

`_key` orders the pieces a node could ask for, the least first: bit 15 is set for what it has or has asked for, seven
bits count the neighbours that are known to have the piece, and eight random ones break ties, differently at each node.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_CLOSED, _ONE = 0x8000, 0x100
_MANY = 1 << 21
"""Cells looked at in one go."""


class Holdings:
    """The pieces of `nodes` nodes, of `sizes` bytes."""

    def __init__(self, nodes: int, sizes: Sequence[int], rng: np.random.Generator) -> None:
        self.sizes = np.array(sizes, dtype=np.float64)
        self.count = len(sizes)
        self._rng = rng
        self._key = rng.integers(0, _ONE, (nodes, self.count), dtype=np.uint16)
        self._hidden = np.full((nodes, self.count), 0xFFFF, dtype=np.uint16)
        """0 where neighbours know that the node has the piece."""
        self._got = np.zeros(nodes * self.count, dtype=np.float32)
        self._has = np.zeros((nodes, self.count), dtype=np.bool_)
        self.missing = np.full(nodes, self.count)
        self.unasked = np.full(nodes, self.count)
        """Pieces that a node neither has nor has asked for."""
        self.shows = np.zeros(nodes, dtype=np.bool_)
        """Whether anybody can know that the node has anything."""

    def fill(self, node: int) -> None:
        """The node has everything from the start."""
        self._key[node] |= _CLOSED
        self._hidden[node], self._has[node], self.shows[node] = 0, True, True
        self.missing[node] = self.unasked[node] = 0

    def choose(self, sources: Ints, targets: Ints) -> tuple[Ints, Flags]:
        """For each pair the rarest piece that the one shows and the other may ask for, and whether there is any."""
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

    def ask(self, nodes: Ints, pieces: Ints) -> None:
        """Pairs that are asked for now, each once."""
        self._key[nodes, pieces] |= _CLOSED
        np.subtract.at(self.unasked, nodes, 1)

    def unask(self, node: int, piece: int) -> None:
        """Nobody brings it any more."""
        if not self._has[node, piece] and self._key[node, piece] & _CLOSED:
            self._key[node, piece] &= _CLOSED - 1
            self.unasked[node] += 1

    def add(self, nodes: Ints, pieces: Ints, moved: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bytes of pieces have come. What each pair lacks now; negative where more came than it lacked."""
        codes = nodes * self.count + pieces
        np.add.at(self._got, codes, moved.astype(np.float32))
        return self.sizes[pieces] - self._got[codes]

    def lacks(self, nodes: Ints, pieces: Ints) -> NDArray[np.float64]:
        """Bytes that are still to come."""
        return self.sizes[pieces] - self._got[nodes * self.count + pieces]

    def complete(self, nodes: Ints, pieces: Ints) -> tuple[Ints, Ints]:
        """The pairs are whole, those of them that are news are returned."""
        codes = np.unique(nodes * self.count + pieces)
        nodes, pieces = codes // self.count, codes % self.count
        news = ~self._has[nodes, pieces]
        nodes, pieces = nodes[news], pieces[news]
        was_open = self._key[nodes, pieces] < _CLOSED
        np.subtract.at(self.unasked, nodes[was_open], 1)
        np.subtract.at(self.missing, nodes, 1)
        self._has[nodes, pieces] = True
        self._key[nodes, pieces] |= _CLOSED
        return nodes, pieces

    def show(self, nodes: Ints, pieces: Ints) -> None:
        """From now on others can know of these pairs."""
        self._hidden[nodes, pieces] = 0
        self.shows[nodes] = True

    def count_one(self, nodes: Ints, pieces: Ints) -> Flags:
        """A neighbour more of each pair's node shows its piece; for which pairs that is of use."""
        codes = nodes * self.count + pieces
        flat = self._key.reshape(-1)
        np.add.at(flat, codes, np.uint16(_ONE))
        return flat[codes] < _CLOSED

    def meet(self, node: int, other: int) -> None:
        """`node` gets to know what `other` shows."""
        if self.shows[other]:
            self._key[node] += np.where(self._hidden[other], 0, _ONE).astype(np.uint16)

    def part(self, node: int, other: int) -> None:
        """The reverse."""
        if self.shows[other]:
            self._key[node] -= np.where(self._hidden[other], 0, _ONE).astype(np.uint16)

    def has(self, nodes: Ints, pieces: Ints) -> Flags:
        """Whether each pair is whole."""
        return self._has[nodes, pieces]

    def shown(self, nodes: Ints, pieces: Ints) -> Flags:
        """Whether others know that each pair is whole."""
        return self._hidden[nodes, pieces] == 0

    def is_scarce(self, nodes: Ints, pieces: Ints) -> Flags:
        """Whether the node lacks the piece, and no neighbour has it."""
        return self._key[nodes, pieces] < _ONE

    def scarce(self, node: int) -> int:
        """All such pieces of a node, bit p for piece p."""
        return int.from_bytes(np.packbits(self._key[node] < _ONE, bitorder="little").tobytes(), "little")
