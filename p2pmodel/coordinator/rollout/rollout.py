"""One roll-out: its nodes, its gates, and when it ends. Pure; times are passed in.

The coordinator owns a `Rollout`. Everything else reads a `RolloutView`, which does not change.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from p2pmodel.coordinator.rollout.nodes import (
    GATES,
    Gate,
    NodeReport,
    RolloutMoment,
    RolloutNode,
    told_by_node,
)
from p2pmodel.core.content.names import RepoId, check_node_name, is_commit, printable
from p2pmodel.errors import Conflict, InvalidInput

RolloutState = Literal["open", "complete", "late", "ended"]
"""`complete`: all listed nodes have passed all gates; `late`: the deadline has passed; `ended`: on request."""
MAX_NODES = 10_000
"""Nodes of one roll-out, listed and unlisted together."""
MAX_DEADLINE = 30 * 86400.0
_MIN_READY = re.compile(r"([0-9]{1,6})(%?)")

Transition = Callable[[RolloutNode, NodeReport, RolloutMoment], RolloutNode]


@dataclass(frozen=True, slots=True)
class MinReady:
    """How many nodes suffice: a number, or a percentage of the listed nodes."""

    value: int
    percent: bool = False

    def __str__(self) -> str:
        return f"{self.value}%" if self.percent else str(self.value)

    @classmethod
    def parse(cls, text: str) -> "MinReady":
        """Parse `12` or `90%`. Raises InvalidInput."""
        match = _MIN_READY.fullmatch(text.strip())
        if match is None or (match[2] and int(match[1]) > 100):
            raise InvalidInput(
                f"'{printable(text, 20)}' is not a number of nodes", hint="write a number of nodes, or 0% to 100%"
            )
        return cls(int(match[1]), bool(match[2]))

    def count(self, nodes: int) -> int:
        """The number of nodes, of `nodes` in all."""
        return math.ceil(self.value * nodes / 100) if self.percent else self.value


ALL = MinReady(100, percent=True)


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """The order for a roll-out: a snapshot, the nodes, the gates, and a deadline in seconds.

    Without `nodes` every node that reports counts, and `min_ready` is a number. Raises InvalidInput for values out of
    bounds.
    """

    repo: RepoId
    commit: str
    nodes: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ("files",)
    deadline: float = 3600.0
    min_ready: MinReady = ALL

    def __post_init__(self) -> None:
        if not is_commit(self.commit):
            raise InvalidInput("a roll-out needs a commit of 40 hexadecimal digits", hint="resolve the revision first")
        if len(self.nodes) > MAX_NODES:
            raise InvalidInput(f"a roll-out has at most {MAX_NODES} nodes", hint="make several")
        if len(set(map(check_node_name, self.nodes))) < len(self.nodes):
            raise InvalidInput("a node is named twice", hint="name each node once")
        if not self.gates or tuple(gate for gate in GATES if gate in self.gates) != self.gates:
            raise InvalidInput(f"the gates are a part of {', '.join(GATES)}, in this order")
        if not 1 <= self.deadline <= MAX_DEADLINE:
            raise InvalidInput("the deadline of a roll-out is 1 second to 30 days")
        if self.nodes and self.min_ready.count(len(self.nodes)) > len(self.nodes):
            raise InvalidInput(f"{self.min_ready} nodes cannot be ready of {len(self.nodes)}")

    @property
    def last_gate(self) -> Gate:
        """The gate behind which a node is done."""
        return self.gates[-1]

    def same(self, other: "RolloutSpec") -> bool:
        """Whether it is the same snapshot, for the same nodes, through the same gates."""
        mine, theirs = (self.repo, self.commit, self.gates), (other.repo, other.commit, other.gates)
        return mine == theirs and set(self.nodes) == set(other.nodes)


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A roll-out at one moment. `began` and `ended_wall` are seconds since 1970, `elapsed` seconds since it began.

    `enough_after`: seconds after which `spec.min_ready` nodes had passed the last gate; None: not yet. `nodes`: the
    listed ones in the order of the spec, then the others.
    """

    id: str
    spec: RolloutSpec
    owner: str
    state: RolloutState
    began: float
    elapsed: float
    nodes: tuple[RolloutNode, ...]
    enough_after: float | None = None

    @property
    def open(self) -> bool:
        """Whether it takes reports."""
        return self.state == "open"


@dataclass(slots=True)
class Rollout:
    """A roll-out of the coordinator. `began` is on the clock of `now`, `began_wall` in seconds since 1970."""

    id: str
    spec: RolloutSpec
    owner: str
    began: float
    began_wall: float
    state: RolloutState = "open"
    elapsed_at_end: float = 0.0
    enough_after: float | None = None
    ignored: int = 0
    """Nodes that found no place."""
    _nodes: dict[str, RolloutNode] = field(default_factory=dict)
    _short: dict[str, str] = field(default_factory=dict)
    """Names of the listed nodes by their first label; "" where two have the same."""
    _through: int = 0
    """Nodes that count and have passed the last gate."""

    def __post_init__(self) -> None:
        for name in self.spec.nodes:
            self._nodes.setdefault(name, RolloutNode(name))
            short = name.partition(".")[0]
            self._short[short] = "" if short in self._short else name

    @classmethod
    def restored(cls, view: RolloutView, now: float, wall: float) -> "Rollout":
        """The roll-out of a coordinator that has restarted: the time in between counts, by the wall clock."""
        elapsed = view.elapsed if not view.open else max(view.elapsed, wall - view.began)
        rollout = cls(view.id, view.spec, view.owner, now - elapsed, view.began, view.state, view.elapsed)
        rollout.enough_after = view.enough_after
        rollout._nodes.update((node.name, node) for node in view.nodes)
        rollout._through = len(passing_times(rollout._counted(), view.spec.last_gate))
        return rollout

    @property
    def open(self) -> bool:
        """Whether it takes reports."""
        return self.state == "open"

    def node(self, name: str) -> RolloutNode | None:
        """A node under any of its names; None if nothing is known of it."""
        return self._nodes.get(self._known_as(name))

    def lists(self, name: str) -> bool:
        """Whether the node is one of those that it expects."""
        node = self.node(name)
        return node is not None and node.listed

    def view(self, now: float) -> RolloutView:
        """The roll-out now."""
        elapsed = now - self.began if self.open else self.elapsed_at_end
        nodes = tuple(self._nodes.values())
        return RolloutView(
            self.id, self.spec, self.owner, self.state, self.began_wall, elapsed, nodes, self.enough_after
        )

    def take(self, name: str, report: NodeReport, now: float, wall: float, by: Transition = told_by_node) -> None:
        """Take a report. Raises Conflict if the roll-out is over."""
        if not self.open:
            raise Conflict(f"the roll-out {self.id} is over", hint="begin a new one")
        name = self._known_as(name)
        node = self._nodes.get(name)
        if node is None:
            if len(self._nodes) >= MAX_NODES:
                self.ignored += 1
                return
            node = RolloutNode(name, listed=False)
        changed = by(node, report, RolloutMoment(now - self.began, wall))
        self._nodes[name] = changed
        last = self.spec.last_gate
        if last in changed.gates and last not in node.gates and (node.listed or not self.spec.nodes):
            self._through += 1
            self._note_enough()
            if self._through == len(self.spec.nodes):
                self._end("complete", now)

    def look(self, now: float) -> bool:
        """End it if its deadline has passed; whether it ended now."""
        if self.open and now - self.began >= self.spec.deadline:
            self._end("late", self.began + self.spec.deadline)
            return True
        return False

    def end(self, now: float) -> None:
        """End it on request."""
        if self.open:
            self._end("ended", now)

    def replace_terms(self, spec: RolloutSpec, now: float) -> None:
        """Another request for the same roll-out: its deadline counts from now, and its `min_ready` holds."""
        deadline = min(now - self.began + spec.deadline, MAX_DEADLINE)
        self.spec = replace(self.spec, deadline=deadline, min_ready=spec.min_ready)
        self.enough_after = None
        self._note_enough()

    def _end(self, state: RolloutState, now: float) -> None:
        self.state, self.elapsed_at_end = state, now - self.began

    def _known_as(self, name: str) -> str:
        """The name under which a node is listed: a host name may come with its domain, or without it."""
        return name if name in self._nodes else self._short.get(name.partition(".")[0]) or name

    def _counted(self) -> list[RolloutNode]:
        return [node for node in self._nodes.values() if node.listed or not self.spec.nodes]

    def _note_enough(self) -> None:
        needed = max(1, self.spec.min_ready.count(len(self.spec.nodes)))
        known = bool(self.spec.nodes) or not self.spec.min_ready.percent
        if known and self.enough_after is None and self._through >= needed:
            self.enough_after = sorted(passing_times(self._counted(), self.spec.last_gate))[needed - 1]


def passing_times(nodes: Iterable[RolloutNode], gate: Gate) -> list[float]:
    """When each of the nodes that have passed `gate` did."""
    return [node.gates[gate].seconds for node in nodes if gate in node.gates]
