"""A BitTorrent tracker over HTTP (BEP 3, 7, 23, 24, 48): what it answers, and the handlers around it.

It is open unless told otherwise: any info-hash may be announced, so that foreign clients can share what this
coordinator has no catalog entry for, and a restart without a kept catalog does not split swarms. Memory stays
bounded (`TrackedSwarms`); who may reach it is the token's affair.

A peer is listed under the address its announce came from, which is right with several peers on one machine as long
as each binds its own 127.0.0.x. An `ip=` parameter counts only when it comes from loopback: it lets a seeder beside
the tracker give the address by which others reach it.
"""

import random
import time
from collections.abc import Callable
from functools import lru_cache

from aiohttp import web

from p2pmodel.coordinator import tracker_codec as codec
from p2pmodel.coordinator.announces import Counts, TrackedSwarms, is_loopback
from p2pmodel.errors import AccessDenied, InvalidInput, NotFound, P2PModelError

INTERVAL = 30
MIN_INTERVAL = 5


def _anything(info_hash: bytes) -> bool:  # noqa: ARG001
    return True


class Tracker:
    """Announces and scrapes in, bencoded answers out. Intervals in seconds.

    `admits` says whether a 20-byte info-hash may be announced; `full_scrape` allows a scrape of every swarm.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        interval: int = INTERVAL,
        admits: Callable[[bytes], bool] = _anything,
        full_scrape: bool = False,
    ) -> None:
        self._swarms = TrackedSwarms(clock, rng or random.Random(), interval=interval)  # noqa: S311  spreads load, no secret
        self._interval = interval
        self._min_interval = min(MIN_INTERVAL, interval)
        self._admits = admits
        self._full_scrape = full_scrape

    def announce(self, query: str, source: str) -> bytes:
        """Answer the announce with raw query string `query` from the IP address `source`.

        Raises InvalidInput for a malformed query and NotFound for an info-hash that is not admitted.
        """
        request = codec.parse_announce(query)
        if not self._admits(request.announce.info_hash):
            raise NotFound("this torrent is not registered with this tracker")
        host = _packed(source)
        if request.claimed is not None and is_loopback(host):
            host = request.claimed
        answer = self._swarms.announce(request.announce, host)
        return codec.announce_response(
            request, answer, interval=self._interval, min_interval=self._min_interval, host=host
        )

    def scrape(self, query: str) -> bytes:
        """Answer a scrape. Raises InvalidInput, and AccessDenied when everything is asked for and not allowed."""
        asked = codec.parse_scrape(query)
        if not asked and not self._full_scrape:
            raise AccessDenied("a scrape must name its info_hash")
        hashes = asked or self._swarms.info_hashes()
        return codec.scrape_response(((h, self.counts(h)) for h in hashes), min_interval=self._interval)

    def counts(self, info_hash: bytes) -> Counts:
        """How many seed and download the torrent with this 20-byte info-hash."""
        return self._swarms.counts(info_hash)

    def is_held(self, info_hash: bytes) -> bool:
        """Whether somebody whom lessees are told of has all of it."""
        return self._swarms.is_held(info_hash)

    async def handle_announce(self, request: web.Request) -> web.Response:
        """GET /announce."""
        return _answer(self.announce(request.rel_url.raw_query_string, request.remote or ""))

    async def handle_scrape(self, request: web.Request) -> web.Response:
        """GET /scrape."""
        return _answer(self.scrape(request.rel_url.raw_query_string))


def refusal(error: P2PModelError) -> web.Response:
    """A refusal in the tracker protocol: status 200, the reason in the body."""
    return _answer(codec.failure_response(str(error)))


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/plain")


@lru_cache(maxsize=4096)
def _packed(source: str) -> bytes:
    try:
        return codec.pack_address(source)
    except ValueError:
        raise InvalidInput("announces need an IP address to come from") from None
