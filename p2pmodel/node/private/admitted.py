"""Which addresses may exchange with a private torrent, by what all its coordinators have sent. Pure: time is given.

A coordinator that restarts knows its nodes only once they have connected again, and may not know which nodes it had put
out. So an address that is no longer listed stays admitted for a while, and one that is no longer barred stays barred,
unless that coordinator admits it.
"""

from collections.abc import Hashable

from p2pmodel.coordinator.private.messages import MembershipGrant
from p2pmodel.swarm.engine import Admissions

MOST_WITHDRAWN = 20_000
"""Withdrawn certificates that are remembered, the latest."""
KEPT = 20.0
"""Seconds for which an address that no coordinator lists any more stays admitted: nodes connect again in 2 seconds."""


class AdmittedAddresses:
    """The last message of each coordinator, and the addresses that were in the ones before."""

    def __init__(self) -> None:
        self._messages: dict[Hashable, MembershipGrant] = {}
        self._kept: dict[str, float] = {}
        self._out: dict[Hashable, dict[str, float]] = {}
        """By coordinator, the addresses that it bars or has barred, and until when that holds."""
        self._withdrawn: dict[str, None] = {}

    def take(self, coordinator: Hashable, message: MembershipGrant, now: float) -> None:
        """Replace the message of `coordinator`."""
        before = self._messages.get(coordinator)
        self._messages[coordinator] = message
        for address in set(before.admitted if before else ()) - set(message.admitted):
            self._kept[address] = now + KEPT
        held = self._out.get(coordinator, {})
        out = {address: until for address, until in held.items() if until > now}
        barred = (*(before.barred if before else ()), *message.barred)
        self._out[coordinator] = out = out | dict.fromkeys(barred, now + KEPT)
        for address in message.admitted:
            out.pop(address, None)
        self._withdrawn |= dict.fromkeys(message.withdrawn)
        while len(self._withdrawn) > MOST_WITHDRAWN:
            del self._withdrawn[next(iter(self._withdrawn))]

    def is_withdrawn(self, serial: str) -> bool:
        """Whether a coordinator has withdrawn the certificate with this number."""
        return serial in self._withdrawn

    def admissions(self, now: float) -> Admissions:
        """What holds in the swarm now."""
        self._kept = {address: until for address, until in self._kept.items() if until > now}
        listed = frozenset(address for message in self._messages.values() for address in message.admitted)
        barred = frozenset(address for message in self._messages.values() for address in message.barred)
        barred |= {address for out in self._out.values() for address, until in out.items() if until > now}
        return Admissions(listed | self._kept.keys(), barred)

    def clients(self, now: float) -> Admissions:
        """What holds for clients of this node's HTTP source now: it tells nodes at one address apart."""
        in_swarm = self.admissions(now)
        http_only = frozenset(address for message in self._messages.values() for address in message.http_only)
        shut = frozenset(
            address for message in self._messages.values() for address in set(message.barred) - set(message.http_only)
        )
        for coordinator, out in self._out.items():
            shared = self._messages[coordinator].http_only
            shut |= {address for address, until in out.items() if until > now and address not in shared}
        return Admissions(in_swarm.admitted | http_only, shut)

    def http_only_for(self) -> float:
        """The longest time, in seconds at the last message, for which peers do not connect to this node."""
        return max((message.http_only_for for message in self._messages.values()), default=0.0)
