"""A BitTorrent tracker over HTTP (BEP 3, 7, 23, 24, 48): its answers, and the handlers around it.

It is open by default: any info-hash may be announced, so foreign clients can share torrents that this coordinator's
catalog does not have, and a restart without a stored catalog does not split swarms. Memory stays bounded
(`TrackedSwarms`); access is controlled by the coordinator's token.

A peer is listed under the address its announce came from. With several peers on one machine that is right as long as
each binds its own 127.0.0.x. An `ip=` parameter counts only in an announce from the networks that the settings name: a
client that announces through a proxy gives its own address with it. Nodes advertise addresses with `address=`: a port
of the address that they announce from is theirs to give; another address needs those networks, or the right of a
member that the coordinator knows by its token.
"""

import ipaddress
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from aiohttp import web
from cachetools import TTLCache

from p2pmodel.config.sections.coordinator import TrackerSettings
from p2pmodel.coordinator.complaints import Complaints
from p2pmodel.coordinator.server.probes import ConnectionProbes
from p2pmodel.coordinator.tracker import codec
from p2pmodel.coordinator.tracker.announce_texts import (
    ADVICE,
    NOT_IN_PRIVATE_SWARM,
    UNTRUSTED_PROXY,
    not_admitted,
    unreachable,
    warning_text,
)
from p2pmodel.coordinator.tracker.announces import MOST_ENDPOINTS, TrackedSwarms
from p2pmodel.coordinator.tracker.link_graph import COMPLETE
from p2pmodel.coordinator.tracker.tracked_swarm import Counts
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import AccessDenied, Forbidden, InvalidInput, NotFound, P2PModelError
from p2pmodel.http.admission.forwarded import is_forwarded

INTERVAL = 30
MIN_INTERVAL = 5
_SOON = 10
"""Seconds between announces of a client that no other can connect to, and of a source."""
_ALONE = 4
"""Seconds between announces of a client without peers: it learns of the next peer within ten seconds."""
_LATEST = 4
"""Seconds until the second announce of a client that comes last into a large swarm: then it gets as many peers as
others."""
_ENDED_FOR = 600.0
"""Seconds for which a source that could not be used is left out; it names itself again every minute."""
_MOST_KNOWN = 16_384


DEFAULTS = TrackerSettings()

MEMBER = web.RequestKey("MEMBER", bool)
"""Key of an announce of a client that has shown that it is a member."""


def everywhere(info_hash: bytes, address: str) -> bool:  # noqa: ARG001
    """Answer clients at every address."""
    return True


def anything(info_hash: bytes) -> bool:  # noqa: ARG001
    """Admit every torrent."""
    return True


class Tracker:
    """Announces and scrapes in, bencoded answers out. Intervals in seconds.

    `admits` returns whether a 20-byte info-hash may be announced; `full_scrape` allows a scrape of every swarm.
    `probes` try whether peers can connect to a client.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        interval: int = INTERVAL,
        admits: Callable[[bytes], bool] = anything,
        full_scrape: bool = False,
        settings: TrackerSettings = DEFAULTS,
        probes: ConnectionProbes | None = None,
    ) -> None:
        self._swarms = TrackedSwarms(
            clock,
            rng or random.Random(),  # noqa: S311  spreads load, no secret
            interval=interval,
            max_address=settings.peers_per_address,
        )
        self._ip_from = tuple(map(ipaddress.ip_network, settings.ip_from))
        self._interval = interval
        self._min_interval = min(MIN_INTERVAL, interval)
        self._admits = admits
        self._full_scrape = full_scrape
        self._lists: Callable[[bytes, str], bool] = everywhere
        self._tracks: Callable[[bytes], bool] = anything
        self.complaints = Complaints(clock)
        """What leaseholders report about peers; passed on in the answers to these peers' announces."""
        self.probes = probes
        self._unreachable: TTLCache[tuple[bytes, bytes], str] = TTLCache(_MOST_KNOWN, 2 * interval, timer=clock)
        self._ended_sources: TTLCache[tuple[bytes, bytes], bytes] = TTLCache(_MOST_KNOWN, _ENDED_FOR, timer=clock)
        """Clients that are treated as no sources, whatever they announce, with their peer ids; b"": any."""

    def list_by(self, lists: Callable[[bytes, str], bool], tracks: Callable[[bytes], bool] = anything) -> None:
        """Answer, and list, only clients at addresses that `lists` admits to the swarm of a 20-byte info-hash, and
        only torrents that it `tracks`."""
        self._lists, self._tracks = lists, tracks

    def announce(self, query: str, source: str, *, member: bool = False, forwarded: bool = False) -> bytes:
        """Answer the announce with raw query string `query` from the IP address `source`. `member`: its client is one,
        by a token. `forwarded`: the address is that of an unknown proxy, and no peer is there.

        Raises InvalidInput for a malformed query, NotFound for an info-hash that is not admitted, and Forbidden for a
        client at an address that is not in a private swarm.
        """
        request = codec.parse_announce(query)
        if not self._has(request.announce.info_hash):
            raise NotFound("this torrent is not registered with this tracker")
        host = _packed(source)
        may_claim = self._may_claim(host)
        if request.claimed is not None and may_claim:
            host = request.claimed
        claims = may_claim and request.claimed is not None
        info_hash = request.announce.info_hash
        self._check_listed(info_hash, host)
        advertised = tuple(
            e
            for e in request.advertised
            if (member or may_claim or (e[:-2] == host and not forwarded)) and self._lists(info_hash, _text(e[:-2]))
        )
        if forwarded and not advertised and not claims:
            raise Forbidden(f"{UNTRUSTED_PROXY} ({source})", hint=f"set http.trusted_proxies to {source} there")
        endpoints = advertised or (host + request.announce.port.to_bytes(2, "big"),)
        announce = request.announce
        ended = (self._ended_sources.get((info_hash, each)) for each in endpoints)
        if announce.role == "source" and any(by in (b"", announce.peer_id) for by in ended if by is not None):
            announce = replace(announce, role="")
        answer = self._swarms.announce(announce, host, advertised)
        warnings = _warnings(request, advertised)
        failures = [(each, found) for each in endpoints if (found := self._unreachable.get((info_hash, each)))]
        warnings += [unreachable(codec.endpoint_text(each), failure) for each, failure in failures]
        places = {host, *(endpoint[:-2] for endpoint in advertised)}
        if bad := {piece for place in places for piece in self.complaints.about(info_hash, place)}:
            warnings.append(warning_text(sorted(bad)))
        alone = not answer.peers and not announce.seeding
        soon = bool(failures) or request.announce.role == "source"
        is_late = announce.event == "started" and answer.counts.seeders + answer.counts.leechers > COMPLETE + 1
        # A client that others cannot find or connect to must find them, soon.
        pause = _ALONE if alone else _LATEST if is_late else _SOON if soon else self._interval
        interval = min(self._interval, pause)
        return codec.announce_response(
            request,
            answer,
            interval=interval,
            min_interval=min(self._min_interval, interval),
            host=host,
            warning="; ".join(warnings),
        )

    async def probe(self, query: str, source: str, *, forwarded: bool = False) -> None:
        """Try to connect to the client of an announce, at the addresses that belong to its IP address `source`.
        Raises as `announce`."""
        request = codec.parse_announce(query)
        host, info_hash = _packed(source), request.announce.info_hash
        may_claim = self._may_claim(host)
        if self.probes is None or request.announce.event == "stopped" or not self._has(info_hash):
            return
        if not self._lists(info_hash, _text(host)):  # `announce` refuses it
            return
        own = [e for e in request.advertised if may_claim or (e[:-2] == host and not forwarded)]
        if not own and not request.advertised and not forwarded:
            own = [
                (request.claimed if request.claimed and may_claim else host) + request.announce.port.to_bytes(2, "big")
            ]
        for endpoint in own[:MOST_ENDPOINTS]:
            address = ListenAddress(str(ipaddress.ip_address(endpoint[:-2])), int.from_bytes(endpoint[-2:], "big"))
            failure = await self.probes.failure(address, source)
            if failure:
                self._unreachable[info_hash, endpoint] = failure
            else:
                self._unreachable.pop((info_hash, endpoint), None)

    def unreachable(self, info_hash: bytes) -> list[str]:
        """Addresses of the swarm's clients to which the tracker could not connect, with the reasons."""
        known = ((key, failure) for key, failure in self._unreachable.items() if key[0] == info_hash)
        return sorted(f"{codec.endpoint_text(endpoint)} ({failure})" for (_, endpoint), failure in known)

    def source_ended(self, info_hash: bytes, peer: str, *, alive: bool) -> None:
        """Leaseholders cannot use the client at `peer`, ADDRESS:PORT, as a source: it is an ordinary peer, from now on
        if it is `alive`, else from its next announce on. A process that takes its place is a source until it is tried.
        """
        if endpoint := _endpoint(peer):
            node = self._swarms.node_at(info_hash, endpoint) or {endpoint: b""}
            for each, peer_id in node.items():
                self._ended_sources[info_hash, each] = peer_id
            self._swarms.end_role(info_hash, endpoint, drop=not alive)

    def source_began(self, info_hash: bytes, peer: str) -> None:
        """The client at `peer` is a source again, as it announces."""
        if endpoint := _endpoint(peer):
            for each in {endpoint, *self._swarms.node_at(info_hash, endpoint)}:
                self._ended_sources.pop((info_hash, each), None)

    def _has(self, info_hash: bytes) -> bool:
        return self._admits(info_hash) and self._tracks(info_hash)

    def _check_listed(self, info_hash: bytes, host: bytes) -> None:
        if not self._lists(info_hash, _text(host)):
            raise Forbidden(NOT_IN_PRIVATE_SWARM, hint=ADVICE[NOT_IN_PRIVATE_SWARM])

    def _may_claim(self, host: bytes) -> bool:
        return bool(self._ip_from) and any(ipaddress.ip_address(host) in network for network in self._ip_from)

    def scrape(self, query: str, source: str = "") -> bytes:
        """Answer a scrape from the IP address `source`. Raises InvalidInput, and AccessDenied for a full scrape that is
        not allowed, and for a private swarm that has no node at `source`."""
        named = codec.parse_scrape(query)
        if not named and not self._full_scrape:
            raise AccessDenied("a scrape must name its info_hash")
        for each in named:
            self._check_listed(each, _packed(source) if source else b"")
        hashes = named or [each for each in self._swarms.info_hashes() if self._lists(each, source)]
        return codec.scrape_response(((h, self.counts(h)) for h in hashes), min_interval=self._interval)

    def counts(self, info_hash: bytes) -> Counts:
        """Number of seeders and leechers of the torrent with this 20-byte info-hash."""
        return self._swarms.counts(info_hash)

    def totals(self) -> tuple[int, Counts]:
        """The number of swarms, and the peers of all."""
        each = [self.counts(info_hash) for info_hash in self._swarms.info_hashes()]
        return len(each), Counts(sum(c.seeders for c in each), sum(c.leechers for c in each))

    def is_held(self, info_hash: bytes) -> bool:
        """Whether a peer other than its sources has all of it."""
        return self._swarms.is_held(info_hash)

    async def handle_announce(self, request: web.Request) -> web.Response:
        """GET /announce."""
        query, member = request.rel_url.raw_query_string, request.get(MEMBER, False)
        forwarded = is_forwarded(request)
        await self.probe(query, request.remote or "", forwarded=forwarded)
        return _answer(self.announce(query, request.remote or "", member=member, forwarded=forwarded))

    async def handle_scrape(self, request: web.Request) -> web.Response:
        """GET /scrape."""
        return _answer(self.scrape(request.rel_url.raw_query_string, request.remote or ""))


def refusal(error: P2PModelError) -> web.Response:
    """A refusal in the tracker protocol: status 200, the reason in the body."""
    return _answer(codec.failure_response(str(error)))


def _warnings(request: codec.AnnounceQuery, admitted: tuple[bytes, ...]) -> list[str]:
    refused = [codec.endpoint_text(each) for each in request.advertised if each not in admitted]
    return [not_admitted(refused)] if refused else []


def _endpoint(peer: str) -> bytes | None:
    try:
        address = ListenAddress.parse(peer)
        return codec.pack_address(address.host) + address.port.to_bytes(2, "big")
    except (InvalidInput, ValueError):
        return None  # it has no address in the swarm


def _text(host: bytes) -> str:
    return str(ipaddress.ip_address(host)) if host else ""


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/plain")


@lru_cache(maxsize=4096)
def _packed(source: str) -> bytes:
    try:
        return codec.pack_address(source)
    except ValueError:
        raise InvalidInput("an announce must come from an IP address") from None
