"""A request that came through reverse proxies: its client, and the URL by which clients reach this server.

Each proxy appends the address of its own client (X-Forwarded-For, or Forwarded of RFC 7239), so only what trusted
proxies appended is known: the client is the right-most address that is not a trusted proxy. What stands left of it, a
client may have written.

The server's URL is for absolute URLs in its answers. Behind a proxy it has another scheme, host and path than the
request that arrives. The setting `http.public_url` says what it is. Without it the headers X-Forwarded-Proto, -Host and
-Prefix do, if they are of a proxy on this machine or in `http.trusted_proxies`; of other clients they are ignored.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDictProxy
from yarl import URL

from p2pmodel.core.network.addresses import Address, Network, is_loopback, parsed_address
from p2pmodel.errors import InvalidInput

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


PUBLIC_URL = web.AppKey("PUBLIC_URL", str)
"""The URL that is configured, without a slash at its end."""

_SCHEMES = ("http", "https")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")


def public_base(request: web.Request) -> str:
    """The URL of this server for the client of `request`, without a slash at its end. Raises InvalidInput."""
    configured = request.config_dict.get(PUBLIC_URL)
    if configured:
        return configured
    try:
        own = request.url.origin()
    except ValueError:
        raise InvalidInput("invalid Host header") from None
    if not _is_of_near_proxy(request):
        return str(own)
    scheme = _first(request, "X-Forwarded-Proto")
    host = _first(request, "X-Forwarded-Host")
    prefix = _first(request, "X-Forwarded-Prefix").rstrip("/")
    return "".join(
        (
            scheme if scheme in _SCHEMES else own.scheme,
            "://",
            host if _HOST.fullmatch(host) else own.raw_authority,
            prefix if _PREFIX.fullmatch(prefix) and ".." not in prefix else "",
        )
    )


def public_url(request: web.Request) -> URL:
    """The URL of `request` as its client sent it. Raises InvalidInput."""
    return URL(f"{public_base(request)}{request.rel_url.raw_path_qs}", encoded=True)


def _first(request: web.Request, header: str) -> str:
    """The value that the nearest client of a row of proxies saw."""
    return request.headers.get(header, "").partition(",")[0].strip()


def _is_of_near_proxy(request: web.Request) -> bool:
    if request.get(THROUGH_PROXY):
        return True
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return isinstance(peer, tuple) and is_loopback(str(peer[0]))
