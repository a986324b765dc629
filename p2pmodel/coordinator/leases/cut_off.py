"""Nodes of a swarm that get nothing from their peers, by name, for display."""

MAX_CUT_OFF = 100
"""Most names that are remembered of a swarm."""


class CutOffNodes:
    """The names that nodes gave themselves, in the order in which they were cut off; kept as long as the swarm is."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def note(self, peer: str, node: str) -> None:
        """The node `node`, which is `peer` in the swarm, is cut off."""
        if peer in self._names or len(self._names) < MAX_CUT_OFF:
            self._names[peer] = node

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._names.values())
