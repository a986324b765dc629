"""The client of a request that came through reverse proxies: X-Forwarded-For, or Forwarded (RFC 7239).

Each proxy appends the address of its own client, so only what trusted proxies appended is known: the client is the
right-most address that is not a trusted proxy. What stands left of it, a client may have written.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDictProxy

from p2pmodel.core.network.addresses import Address, Network, parsed_address

THROUGH_PROXY = web.RequestKey("THROUGH_PROXY", bool)
"""Key of a request that came through a trusted proxy: its `remote` is the client of that proxy."""

_HEADERS = ("X-Forwarded-For", "Forwarded")
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("(?:[^"\\]|\\.)*"|[^;"\s]*)', re.IGNORECASE)
_WITH_PORT = re.compile(r"\[(?P<six>[0-9A-Fa-f:.]+)\](:\S*)?|(?P<four>[0-9.]+)(:\S*)?")
_MOST_HOPS = 32


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The networks of proxies that the settings trust."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "TrustedProxies":
        """The proxies in the networks `texts`, as the settings have checked them."""
        return cls(tuple(map(ipaddress.ip_network, texts)))

    def trusts(self, address: str) -> bool:
        """Whether a proxy has the IP address `address`."""
        known = parsed_address(address)
        return known is not None and any(known in network for network in self.networks)

    def client(self, peer: str, headers: CIMultiDictProxy[str]) -> str | None:
        """The client of the proxy at `peer`; None if that is no trusted proxy, or does not say so.

        Headers of both kinds must agree: a proxy appends to one of them, and may pass on the other one unread.
        """
        if not self.trusts(peer):
            return None
        found = {self._last_untrusted(peer, hops) for header in _HEADERS if (hops := _hops(header, headers))}
        return found.pop() if len(found) == 1 else None

    def _last_untrusted(self, peer: str, hops: Sequence[str]) -> str:
        known = peer
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:  # "unknown", or hidden: the proxy that said so stands for it
                return known
            known = str(address)
            if not self.trusts(known):
                return known
        return known


NO_PROXIES = TrustedProxies()


def is_forwarded(request: web.Request) -> bool:
    """Whether a proxy that is not trusted, or does not name its client, says that it passed on `request`."""
    return not request.get(THROUGH_PROXY) and any(header in request.headers for header in _HEADERS)


def _hops(header: str, headers: CIMultiDictProxy[str]) -> list[str]:
    """The addresses in all headers of that name, in their order."""
    parts = [part.strip() for value in headers.getall(header, []) for part in value.split(",")][-_MOST_HOPS:]
    if header == "Forwarded":
        return [found[1].strip('"') if (found := _FOR.search(part)) else "unknown" for part in parts]
    return parts


def _address(hop: str) -> Address | None:
    """The address of a hop, which may have a port."""
    match = _WITH_PORT.fullmatch(hop)
    return parsed_address((match["six"] or match["four"]) if match else hop)
