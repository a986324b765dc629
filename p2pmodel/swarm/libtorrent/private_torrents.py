"""Private torrents in a libtorrent session: TLS between their peers, and an address filter.

A torrent with a root certificate in its info dictionary exchanges over TLS alone, at a listener of its own. libtorrent
demands from each peer a certificate of that root for the torrent's name, which is the commit. The filter is one for the
session, and holds for torrents with the flag `apply_ip_filter`: for private ones alone.
"""

import ipaddress
from collections.abc import Hashable, Iterable

import libtorrent as lt

from p2pmodel.swarm.engine import Admissions, SwarmCertificate

FFDHE2048 = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""The public group of RFC 7919: libtorrent wants one, although its connections agree on elliptic curves."""


def present(handle: lt.torrent_handle, certificate: SwarmCertificate) -> None:
    """Let a private torrent present `certificate` in new connections."""
    handle.set_ssl_certificate_buffer(certificate.certificate, certificate.key, FFDHE2048)


def is_private(info: lt.torrent_info) -> bool:
    """Whether the torrent is that of a private swarm."""
    return bool(info.ssl_cert())


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
    def exist(self) -> bool:
        """Whether there are private torrents."""
        return bool(self._of)

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
