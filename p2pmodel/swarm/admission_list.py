"""The addresses that may connect to the private torrents of one session, which has one filter for all of them."""

import ipaddress
from collections.abc import Hashable, Iterable

from p2pmodel.swarm.engine import Admissions


class AdmissionList:
    """The admissions of every private torrent. An address that one torrent bars is in no other either: the filter
    tells torrents of one session not apart."""

    def __init__(self) -> None:
        self._of: dict[Hashable, Admissions] = {}

    def put(self, torrent: Hashable, admissions: Admissions) -> bool:
        """Replace what holds for `torrent`; whether the addresses have changed, or this is the first torrent."""
        before, first = self.addresses, not self._of
        self._of[torrent] = Admissions(_normal(admissions.admitted), _normal(admissions.barred))
        return first or self.addresses != before

    def drop(self, torrent: Hashable) -> bool:
        """Forget `torrent`; whether the addresses have changed."""
        before = self.addresses
        self._of.pop(torrent, None)
        return self.addresses != before

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses that may connect now."""
        admitted = frozenset[str]().union(*(each.admitted for each in self._of.values()))
        return admitted.difference(*(each.barred for each in self._of.values()))


def _normal(addresses: Iterable[str]) -> frozenset[str]:
    """The addresses in one spelling, without what is no address; IPv4 addresses inside IPv6 as such."""
    found = set()
    for text in addresses:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            continue
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        found.add(str(mapped or address))
    return frozenset(found)
