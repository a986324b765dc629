"""Which addresses may exchange with a private torrent, by what all its coordinators have sent. Pure: time is given.

A coordinator that restarts knows its nodes only once they have connected again. So an address that is no longer listed
stays admitted for a while; one that is barred does not.
"""

from collections.abc import Hashable

from p2pmodel.coordinator.private.messages import MembershipGrant
from p2pmodel.swarm.engine import Admissions

KEPT = 60.0
"""Seconds for which an address that no coordinator lists any more stays admitted."""


class AdmittedAddresses:
    """The last message of each coordinator, and the addresses that were in the ones before."""

    def __init__(self) -> None:
        self._messages: dict[Hashable, MembershipGrant] = {}
        self._kept: dict[str, float] = {}

    def take(self, coordinator: Hashable, message: MembershipGrant, now: float) -> None:
        """Replace the message of `coordinator`."""
        before = self._messages.get(coordinator)
        self._messages[coordinator] = message
        for address in set(before.admitted if before else ()) - set(message.admitted):
            self._kept[address] = now + KEPT

    def admissions(self, now: float) -> Admissions:
        """What holds now."""
        self._kept = {address: until for address, until in self._kept.items() if until > now}
        listed = frozenset(address for message in self._messages.values() for address in message.admitted)
        barred = frozenset(address for message in self._messages.values() for address in message.barred)
        return Admissions(listed | self._kept.keys(), barred)
