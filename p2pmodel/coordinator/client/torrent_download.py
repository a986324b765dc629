"""Downloading a .torrent over HTTP, from a coordinator or from any other server."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.transport import IDENTITY, NETWORK_ERRORS
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.egress import MALFORMED, PUBLIC, Egress
from p2pmodel.core.network.proxies import DIRECT, Proxies, Proxy
from p2pmodel.core.network.urls import shown
from p2pmodel.errors import BadTorrent, InvalidInput, NotFound, Unavailable, restored
from p2pmodel.http_pool import HttpPool, PeerResponse, read_bounded, session, through
from p2pmodel.origin.failures import Refused, forbidden, forbidden_in, reason_of
from p2pmodel.origin.requests import MAX_REDIRECTS, REDIRECTS, target_of
from p2pmodel.swarm.metainfo import MAX_TORRENT_SIZE
from p2pmodel.swarm.torrents import Metainfo, parse

DOWNLOAD_TIMEOUT = 30.0


async def download_torrent(
    url: str,
    timeout: float = DOWNLOAD_TIMEOUT,
    *,
    stall: float | None = None,
    http: HttpPool | None = None,
    egress: Egress = PUBLIC,
    named: bool = True,
    coordinators: Sequence[Coordinator] = (),
    proxies: Proxies = DIRECT,
) -> Metainfo:
    """GET a .torrent of bounded size within `timeout` seconds, and parse it.

    `stall` bounds the seconds to connect, and between two reads; `http` are connections to share. `egress` is the rule
    for redirects, and for `url` itself if the user or the settings have not `named` it. A URL of one of `coordinators`
    is requested with its token and authorities, and without a proxy; `proxies` is the rule for all others. Raises
    NotFound, Unavailable, InvalidInput or BadTorrent.
    """
    limits = aiohttp.ClientTimeout(total=timeout, sock_connect=stall, sock_read=stall)
    if egress.url_refusal(url) == MALFORMED:
        raise InvalidInput(f"'{shown(url)}' is not a URL")
    try:
        async with asyncio.timeout(timeout):
            data = await _download(url, http, limits, egress, named=named, access=_access(url, coordinators, proxies))
    except aiohttp.InvalidURL:
        raise InvalidInput(f"'{shown(url)}' is not a URL") from None
    except Refused as refusal:
        raise Unavailable(f"{public_path(url)} cannot be downloaded: {refusal.reason}") from None
    except NETWORK_ERRORS as error:
        forbidden = forbidden_in(error)
        raise Unavailable(
            f"{public_path(url)} cannot be downloaded: {forbidden.reason if forbidden else reason_of(error)}",
            hint="check the address and the network",
        ) from None
    return await asyncio.to_thread(parse, data)


@dataclass(frozen=True, slots=True)
class _ServerAccess:
    """What requests to one server have: its credentials, its authorities, and the rule for proxies."""

    proxies: Proxies
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | bool = True


def _access(url: str, coordinators: Sequence[Coordinator], proxies: Proxies) -> _ServerAccess:
    own = next((each for each in coordinators if each.serves(url)), None)
    return _ServerAccess(DIRECT, own.headers, own.tls) if own else _ServerAccess(proxies)


async def _download(
    url: str,
    http: HttpPool | None,
    limits: aiohttp.ClientTimeout,
    egress: Egress,
    *,
    named: bool,
    access: "_ServerAccess",
) -> bytes:
    """The body at `url`, after redirects that `egress` admits."""
    place, rule = URL(url), None if named or egress.names(URL(url).host or "") else replace(egress, ourselves=True)
    for _ in range(MAX_REDIRECTS + 1):
        proxy = access.proxies.of(str(place))
        if rule is not None and (refusal := rule.url_refusal(str(place))):
            raise forbidden(refusal)
        async with (
            session(http, egress=None if proxy else rule, timeout=limits, headers=IDENTITY) as shared,
            _opened(shared, place, access, proxy) as response,
        ):
            if response.status not in REDIRECTS:
                return await _body(response, url)
            target = target_of(response.url, response.headers.get("Location"))
            if target.origin() != place.origin():
                access = replace(access, headers={}, tls=True)
                rule = None if egress.names(target.host or "") else egress.around("" if proxy else response.peer)
            place = target
    raise Refused(f"more than {MAX_REDIRECTS} redirects", Unavailable)


@asynccontextmanager
async def _opened(
    http: aiohttp.ClientSession, place: URL, access: _ServerAccess, proxy: Proxy | None
) -> AsyncIterator[PeerResponse]:
    """The response of one GET. Its failures name the proxy."""
    try:
        options = through(proxy, str(place), access.headers)
        async with http.get(place, allow_redirects=False, ssl=access.tls, **options) as response:
            assert isinstance(response, PeerResponse)
            yield response
    except NETWORK_ERRORS as error:
        if proxy is None or isinstance(error, aiohttp.InvalidURL):
            raise
        raise Refused(f"by proxy {proxy.name}: {reason_of(error)}", Unavailable) from None


def public_path(url: str) -> str:
    """`url` for messages, without its path and query, which may contain secrets."""
    name = urlsplit(url).path.rpartition("/")[2]
    return f"{public_name(url)}/.../{printable(name)}"


async def _body(response: aiohttp.ClientResponse, url: str) -> bytes:
    name = public_path(url)
    if response.status == 404:
        raise NotFound(f"{name} does not exist", hint="check the address")
    if response.status != 200:
        hint = "check the address, or try later"
        raise restored("", f"{name} answered {response.status}", hint=hint, status=response.status)
    if response.content_type == "text/html":
        raise BadTorrent(f"{name} is a web page", hint="give the address of the .torrent itself")
    data = await read_bounded(response, MAX_TORRENT_SIZE)
    if data is None:
        raise BadTorrent(f"{name} is larger than a .torrent may be")
    return data
