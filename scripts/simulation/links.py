"""What flows over links that are shared."""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fair_rates(sources: Ints, targets: Ints, up: Floats, down: Floats) -> Floats:
    """Bytes a second of flows between nodes whose links carry `up` and `down`.

    Each flow gets the lesser of its equal shares at both ends; what that leaves free is shared among the flows that can
    take more, some rounds of it. No link ever carries more than it can.
    """
    nodes = len(up)
    rates = np.minimum(
        _share(up, np.bincount(sources, minlength=nodes))[sources],
        _share(down, np.bincount(targets, minlength=nodes))[targets],
    )
    for _ in range(_ROUNDS - 1):
        free_up = np.maximum(up - np.bincount(sources, rates, nodes), 0.0)
        free_down = np.maximum(down - np.bincount(targets, rates, nodes), 0.0)
        open_up, open_down = free_up > 1e-3 * up, free_down > 1e-3 * down
        growing = np.flatnonzero(open_up[sources] & open_down[targets])
        if not len(growing):
            break
        source, target = sources[growing], targets[growing]
        rates[growing] += np.minimum(
            _share(free_up, np.bincount(source, minlength=nodes))[source],
            _share(free_down, np.bincount(target, minlength=nodes))[target],
        )
    return rates


def _share(room: Floats, flows: Ints) -> Floats:
    return room / np.maximum(flows, 1)
