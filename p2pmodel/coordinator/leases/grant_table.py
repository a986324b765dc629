"""The grants of all peers, computed anew only where something has changed. Pure."""

from collections.abc import Mapping
from types import MappingProxyType

from p2pmodel.coordinator.leases.demand import Grant
from p2pmodel.coordinator.leases.peer import LeasePeer


class GrantTable:
    """The last grants that were computed, and which of them differ by now."""

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        self._changed: set[str] = set()
        self._common = (0, 0, False)
        """The part that all grants share."""

    def changed(self, name: str) -> None:
        """The leases of this peer have changed."""
        self._changed.add(name)

    def current(self, peers: Mapping[str, LeasePeer], origin_bytes: int, *, refused: bool) -> Mapping[str, Grant]:
        """Every peer's grant, by name, as a view that the next call changes. One that is no news is the same object."""
        common = len(peers), origin_bytes, refused
        names = self._changed if common == self._common else peers.keys() | self._changed
        for name in names:
            if peer := peers.get(name):
                self._grants[name] = Grant(tuple(peer.leased), *common)
            else:
                self._grants.pop(name, None)
        self._changed, self._common = set(), common
        return MappingProxyType(self._grants)
