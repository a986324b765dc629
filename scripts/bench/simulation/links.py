"""The rates of flows that share links."""

import numpy as np
from numpy.typing import NDArray

UNFAIR = (0.5, 1.5)
"""Range of the weights of flows: TCP shares evenly on average only."""
_ROUNDS = 3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fair_rates(sources: Ints, targets: Ints, weights: Floats, up: Floats, down: Floats) -> Floats:
    """Bytes per second of each flow, with links that carry `up` and `down` at each node.

    A flow gets the smaller of its shares at both ends, by its weight. The remaining capacity is shared among the flows
    that can use it, in a few rounds. No link carries more than its capacity.
    """
    rates = _shares(sources, targets, weights, up, down)
    for _ in range(_ROUNDS - 1):
        free_up = np.maximum(up - np.bincount(sources, rates, len(up)), 0.0)
        free_down = np.maximum(down - np.bincount(targets, rates, len(up)), 0.0)
        growing = np.flatnonzero((free_up > 1e-3 * up)[sources] & (free_down > 1e-3 * down)[targets])
        if not len(growing):
            break
        rates[growing] += _shares(sources[growing], targets[growing], weights[growing], free_up, free_down)
    return rates


def _shares(sources: Ints, targets: Ints, weights: Floats, up: Floats, down: Floats) -> Floats:
    from_each, to_each = (np.bincount(ends, weights, len(up)) for ends in (sources, targets))
    up_share = np.divide(up, from_each, out=np.zeros(len(up)), where=from_each > 0)
    down_share = np.divide(down, to_each, out=np.zeros(len(up)), where=to_each > 0)
    return weights * np.minimum(up_share[sources], down_share[targets])
