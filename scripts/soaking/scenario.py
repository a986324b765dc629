"""A scenario: a network, where the snapshot is at first, and the faults that happen while peers fetch it."""

from dataclasses import dataclass
from typing import Literal

Topology = Literal["flat", "routed", "nat", "firewall", "multihomed", "ipv6", "moving", "nginx"]
"""`routed`: two networks with a router; `nat`: the same, one behind masquerading; `firewall`: two racks that reach the
coordinator and the mirrors, but not each other; `multihomed`: servers in two networks without a route between them;
`moving`: the coordinator has a name; `nginx`: nginx in front of the coordinator, on its machine."""
Begin = Literal["seeder", "holder", "cold"]
"""Where the snapshot is besides the mirrors: at a seeder, at one complete peer, or nowhere."""
Role = Literal["peer", "seeder", "mirror", "coordinator"]
"""What a fault hits: one of the fetching peers, the seeder or holder, the mirror asked first, the coordinator."""
Kind = Literal["freeze", "unplug", "throttle", "kill", "move"]
"""`move`: the coordinator's name gets another address, where it starts again."""
Moment = Literal["start", "midway", "end"]
"""Servers: before the peers start. Peers: with their first bytes. `end`: in the last 2 %."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an undisturbed run and its scenarios share. `stay`: complete peers go on serving."""

    topology: Topology
    begin: Begin
    peers: int
    megabytes: int
    mirrors: int
    stay: bool

    def __str__(self) -> str:
        parts = [self.topology, self.begin, f"{self.peers} peers", f"{self.megabytes} MB", f"{self.mirrors} mirrors"]
        return ", ".join([*parts, "stay" if self.stay else "leave"])

    @property
    def size(self) -> int:
        """Bytes of the snapshot, about."""
        return self.megabytes * 1_000_000


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault."""

    role: Role
    kind: Kind
    moment: Moment

    def __str__(self) -> str:
        return f"{self.role} {self.kind} {self.moment}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`name` is ROUND.NUMBER, by which a seed's scenario can be repeated alone."""

    name: str
    setting: Setting
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return f"{self.setting} | {', '.join(map(str, self.faults)) or 'no fault'}"

    @property
    def moments(self) -> int:
        """Number of different moments at which something fails."""
        return len({fault.moment for fault in self.faults})

    def hits(self, role: Role) -> bool:
        """Whether a fault hits `role`."""
        return any(fault.role == role for fault in self.faults)
