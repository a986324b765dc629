"""The members of one private swarm: which addresses are in, and which must be out.

Invariants: an address is never both admitted and barred. The addresses of a node that has left stay admitted for a
while: it may be about to connect again, and was entitled. Those of a node that was put out are barred until no
certificate of it is valid any more. A client that is refused may have been in the swarm before a restart, of which
nothing is known here but what other nodes still admit: its address is barred for as long as they may, unless a member
is there.

Hosts share addresses, and the filter of an engine knows addresses alone. So an address at which a withdrawn certificate
may be presented is barred in the swarm even where a member has it. Members there exchange over HTTP meanwhile: sources
tell certificates apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from p2pmodel.coordinator.private.access import NodeIdentity
from p2pmodel.coordinator.private.issued import IssuedCertificates

STAYS = 60.0
"""Seconds for which the addresses of a member that left stay admitted, and that of a refused client is barred."""
MAX_REFUSED = 100
"""Refused clients of one swarm that are remembered, the latest: any host can be refused, and all members are told."""


@dataclass(frozen=True, slots=True)
class SwarmAddresses:
    """What all members are told, each sorted: as in `messages.MembershipGrant`."""

    admitted: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    http_only: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


class SwarmMembers:
    """The members of one swarm by a name that the caller chooses. `lifetime`: seconds that a certificate is valid;
    `issued`: those that are."""

    def __init__(self, lifetime: float, issued: IssuedCertificates | None = None) -> None:
        self.issued = IssuedCertificates() if issued is None else issued
        self._lifetime = lifetime
        self._present: dict[str, frozenset[str]] = {}
        self._left: dict[str, float] = {}
        """By address, until when it stays admitted."""
        self._barred: dict[str, float] = {}
        """By address, until when it is barred."""
        self._refused: dict[str, float] = {}
        """By address of a refused client, until when it is barred."""
        self._shut: Mapping[str, float] = {}

    def __len__(self) -> int:
        return len(self._present)

    def enter(self, name: str, node: NodeIdentity, now: float, *, request: str = "") -> None:
        """A node is in. It may use the addresses that it claims, too, as far as none is barred because of a node of
        which no certificate is known."""
        self.issued.come_back(name, node, request)
        shut = self.issued.shut(now)
        own, *claimed = node.addresses
        self._barred.pop(own, None)
        self._refused.pop(own, None)
        self._present[name] = frozenset((own, *(each for each in claimed if each in shut or each not in self._barred)))

    def leave(self, name: str, now: float) -> None:
        """A node's connection has ended."""
        self.issued.leave(name)
        for address in self._present.pop(name, ()):
            self._left[address] = now + STAYS

    def put_out(self, name: str, now: float, *, revoked: bool = False) -> None:
        """A node may no longer be in. `revoked`: as long as `judge` finds it so."""
        self.issued.withdraw(name, "revoked" if revoked else "lost")
        for address in self._present.pop(name, ()):
            self.bar(address, now)

    def bar(self, address: str, now: float) -> None:
        """No node at `address` may be in: a node there was refused."""
        self._barred[address] = now + self._lifetime
        self._left.pop(address, None)

    def refuse(self, address: str, now: float) -> None:
        """A client at `address` has no right to be in. Members there stay in: hosts share addresses."""
        self.issued.refuse(address)
        self._refused.pop(address, None)
        self._refused[address] = now + STAYS
        self._left.pop(address, None)
        while len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def judge(self, refused: Callable[[NodeIdentity], bool]) -> None:
        """Withdraw the certificates of nodes that have left and are `refused` now."""
        self.issued.judge(refused)

    def addresses(self, now: float) -> SwarmAddresses:
        """What the members are told now."""
        self._left = {address: until for address, until in self._left.items() if until > now}
        self._barred = {address: until for address, until in self._barred.items() if until > now}
        self._refused = {address: until for address, until in self._refused.items() if until > now}
        withdrawn, self._shut = self.issued.withdrawn(now), self.issued.shut(now)
        present = frozenset[str]().union(*self._present.values())
        known = present | self._left.keys()
        barred = (self._barred.keys() | self._refused.keys()) - present | self._shut.keys()
        http_only = known & self._shut.keys()
        admitted, out, shared = (tuple(sorted(each)) for each in (known - barred, barred, http_only))
        return SwarmAddresses(admitted, out, shared, withdrawn)

    def http_only_for(self, name: str, now: float) -> float:
        """Seconds for which peers do not connect to an address of a member; 0 if they do to all."""
        ends = [self._shut[each] for each in self._present.get(name, ()) if each in self._shut]
        return max(0.0, max(ends, default=now) - now)

    @property
    def idle(self) -> bool:
        """Whether nothing of it must be remembered."""
        return not (self._present or self._barred or self._refused or self.issued)
