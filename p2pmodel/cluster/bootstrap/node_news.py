"""What a coordinator knows of the nodes of a roll-out, as long as that is news. Pure; times in seconds are passed in.

A node that was heard lately may stand still all the same: it waits, or it has all bytes, and its report that it is
ready is late. Numbers travel with the demand for leases and end with it; the report needs a coordinator with a free
disk. So a node of which nothing new comes is asked itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from p2pmodel.coordinator.rollout.nodes import SILENCE, RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutView

STILL = 4.0
"""Seconds without a further byte, or another phase, after which the numbers of a node are no news."""


@dataclass(frozen=True, slots=True)
class _Heard:
    node: RolloutNode
    moved: float


@dataclass
class NodeNews:
    """The nodes as of the last view."""

    _heard: Mapping[str, _Heard] = field(default_factory=dict)
    _elapsed: float = 0.0
    _taken: float = 0.0

    def take(self, view: RolloutView, now: float) -> None:
        """The roll-out is as in `view` now."""
        self._heard = {node.name: _Heard(node, self._moved(node, now)) for node in view.nodes}
        self._elapsed, self._taken = view.elapsed, now

    def node(self, name: str, now: float) -> RolloutNode | None:
        """A node that has passed the first gate, or of which the last news is fresh; None else."""
        found = self._heard.get(name)
        if found is None or found.node.heard is None:
            return None
        fresh = found.node.ready("files") or (self.hears(name, now) and now - found.moved < STILL)
        return found.node if fresh else None

    def hears(self, name: str, now: float) -> bool:
        """Whether the node has reported lately, news or not."""
        found = self._heard.get(name)
        if found is None or found.node.heard is None:
            return False
        return self._elapsed + now - self._taken - found.node.heard < SILENCE

    def _moved(self, node: RolloutNode, now: float) -> float:
        before = self._heard.get(node.name)
        same = before is not None and (before.node.phase, before.node.bytes) == (node.phase, node.bytes)
        return before.moved if before is not None and same else now
