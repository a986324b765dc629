"""Transfers of leased pieces from the seeder or the mirror: one HTTP request each."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from scripts.bench.simulation.links import UNFAIR

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class LeasePulls:
    """Transfers of whole pieces, of `sizes` bytes, that begin `delay` seconds after their request."""

    def __init__(self, sizes: Floats, delay: float, rng: np.random.Generator) -> None:
        self._sizes = sizes
        self._delay = delay
        self._rng = rng
        nothing = np.zeros(0, dtype=np.int64)
        self.source, self.target, self.piece = nothing, nothing, nothing
        self._rest = self._begins = self.weight = np.zeros(0)

    def begin(self, requests: Iterable[tuple[int, int, int]], now: float) -> None:
        """Begin a transfer for each (source, node, piece)."""
        rows = np.array(list(requests), dtype=np.int64).reshape(-1, 3)
        self.source, self.target, self.piece = (
            np.concatenate([old, rows[:, place]]) for place, old in enumerate((self.source, self.target, self.piece))
        )
        self._rest = np.concatenate([self._rest, self._sizes[rows[:, 2]]])
        self._begins = np.concatenate([self._begins, np.full(len(rows), now + self._delay)])
        self.weight = np.concatenate([self.weight, self._rng.uniform(*UNFAIR, len(rows))])

    def flowing(self, now: float) -> Ints:
        """Indexes of the transfers that have begun."""
        return np.flatnonzero(self._begins <= now)

    def rest(self, places: Ints) -> Floats:
        """Missing bytes of these transfers."""
        return self._rest[places]

    def carry(self, places: Ints, moved: Floats) -> tuple[Ints, Ints]:
        """`moved` bytes arrived. Removes the transfers that ended; returns their nodes and pieces."""
        self._rest[places] -= moved
        ended = self._rest <= 0.5
        done = self.target[ended], self.piece[ended]
        self.keep(~ended)
        return done

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Stop all other transfers."""
        if which.all():
            return
        self.source, self.target, self.piece = self.source[which], self.target[which], self.piece[which]
        self._rest, self._begins, self.weight = self._rest[which], self._begins[which], self.weight[which]
