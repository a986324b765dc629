"""The members of one private swarm: which addresses are in, and which must be out.

Invariants: an address is never both admitted and barred. The addresses of a node that has left stay admitted for a
while: it may be about to connect again, and was entitled. Those of a node that was put out are barred until no
certificate of it is valid any more, unless they are admitted to another member meanwhile. A client that is refused may
have been in the swarm before a restart, of which nothing is known here but what other nodes still admit: its address is
barred for as long as they may.
"""

from collections.abc import Iterable
from dataclasses import dataclass

STAYS = 60.0
"""Seconds for which the addresses of a member that left stay admitted, and that of a refused client is barred."""
MAX_REFUSED = 100
"""Refused clients of one swarm that are remembered, the latest: any host can be refused, and all members are told."""


@dataclass(frozen=True, slots=True)
class SwarmAddresses:
    """What all members are told, each sorted."""

    admitted: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()


class SwarmMembers:
    """The members of one swarm by a name that the caller chooses. `lifetime`: seconds that a certificate is valid."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._present: dict[str, frozenset[str]] = {}
        self._left: dict[str, float] = {}
        """By address, until when it stays admitted."""
        self._barred: dict[str, float] = {}
        """By address, until when it is barred."""
        self._refused: dict[str, float] = {}
        """By address of a refused client, until when it is barred."""

    def __len__(self) -> int:
        return len(self._present)

    def enter(self, name: str, own: str, claimed: Iterable[str]) -> None:
        """A node at the address `own` is in. It may use the `claimed` addresses, too, as far as they are not barred."""
        self._barred.pop(own, None)
        self._refused.pop(own, None)
        self._present[name] = frozenset((own, *(each for each in claimed if each not in self._barred)))

    def leave(self, name: str, now: float) -> None:
        """A node's connection has ended."""
        for address in self._present.pop(name, ()):
            self._left[address] = now + STAYS

    def put_out(self, name: str, now: float) -> None:
        """A node may no longer be in."""
        for address in self._present.pop(name, ()):
            self.bar(address, now)

    def bar(self, address: str, now: float) -> None:
        """No node at `address` may be in: a node there was refused."""
        self._barred[address] = now + self._lifetime
        self._left.pop(address, None)

    def refuse(self, address: str, now: float) -> None:
        """A client at `address` has no right to be in. Members there stay in: hosts share addresses."""
        self._refused.pop(address, None)
        self._refused[address] = now + STAYS
        self._left.pop(address, None)
        while len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def addresses(self, now: float) -> SwarmAddresses:
        """What the members are told now."""
        self._left = {address: until for address, until in self._left.items() if until > now}
        self._barred = {address: until for address, until in self._barred.items() if until > now}
        self._refused = {address: until for address, until in self._refused.items() if until > now}
        present = frozenset[str]().union(*self._present.values())
        barred = (self._barred.keys() | self._refused.keys()) - present
        return SwarmAddresses(tuple(sorted((present | self._left.keys()) - barred)), tuple(sorted(barred)))
