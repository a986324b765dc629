"""Several engines of one node as one: the pieces of each torrent are shared out among them.

An engine has one network thread. Each of these has its own port, peer id and torrents, and announces for itself.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Self

from p2pmodel.errors import LocalResource, Unavailable
from p2pmodel.swarm.engine import AddTorrent, Engine, EngineSettings, Rates, SwarmTorrent
from p2pmodel.swarm.peer_ids import peer_ids_of_node
from p2pmodel.swarm.split.named_peers import further_port
from p2pmodel.swarm.split.torrent import SplitTorrent
from p2pmodel.swarm.torrents import Metainfo, parse

DIVIDE_EVERY = 0.5
"""Seconds between divisions of the rate limits."""
CLOSE_SECONDS = 12.0
_GROW, _START = 1.25, 0.02
"""An engine asks for _GROW times its rate and the fraction _START of the limit."""
_V1_HASH = 40


def divided(limit: int, rates: Sequence[int]) -> list[int]:
    """`limit` bytes/s divided among engines with these recent `rates`; together at most `limit`, and at least 1 each.

    0 is no limit.
    """
    if not limit:
        return [0] * len(rates)
    asked = [_GROW * rate + _START * limit for rate in rates]
    return [max(1, int(limit * each / sum(asked))) for each in asked]


class SplitEngine:
    """An Engine of `count` engines, which `make` makes. Its address and peer id are those of the first one."""

    def __init__(self, settings: EngineSettings, count: int, make: Callable[[EngineSettings], Engine]) -> None:
        self._settings = settings
        self._count = count
        self._make = make
        self._stack = AsyncExitStack()
        self._engines: list[Engine] = []
        self._torrents: dict[str, SplitTorrent] = {}
        self._limits = (settings.upload_limit, settings.download_limit)
        self._divided: list[tuple[int, int]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        ids = peer_ids_of_node(self._count)
        async with AsyncExitStack() as undo:
            first = await undo.enter_async_context(self._make(self._share(ids[0], self._settings.port)))
            engines = [first]
            for number, peer_id in enumerate(ids[1:], 1):
                engines.append(await self._further(undo, peer_id, further_port(first.address[1], number)))
            self._stack = undo.pop_all()
        self._engines = engines
        self._divide()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(torrent.remove() for torrent in list(self._torrents.values())))
        if self._timer:
            self._timer.cancel()
        self._engines = []
        await self._stack.aclose()

    @property
    def address(self) -> tuple[str, int]:
        return self._first().address

    @property
    def private_address(self) -> tuple[str, int]:
        return self._first().private_address

    @property
    def peer_id(self) -> str:
        return self._first().peer_id

    @property
    def rates(self) -> Rates:
        rates = [engine.rates for engine in self._engines]
        return Rates(sum(each.upload for each in rates), sum(each.download for each in rates))

    async def add(self, request: AddTorrent) -> SwarmTorrent:
        first = self._first()
        metainfo = await asyncio.to_thread(parse, request.metainfo)
        if not _can_be_split(metainfo):
            return await first.add(request)
        torrent = SplitTorrent(
            metainfo, request, self._engines, on_removed=lambda: self._torrents.pop(metainfo.info_hash, None)
        )
        await torrent.join()
        self._torrents[metainfo.info_hash] = torrent
        return torrent

    def limit(self, *, upload: int, download: int) -> None:
        self._first()
        self._limits = upload, download
        self._apply()

    async def fetch_metainfo(self, magnet: str, *, peers: tuple[tuple[str, int], ...] = (), timeout: float) -> bytes:
        return await self._first().fetch_metainfo(magnet, peers=peers, timeout=timeout)

    async def _further(self, undo: AsyncExitStack, peer_id: str, port: int) -> Engine:
        """Another engine, at `port` if that is free."""
        try:
            return await undo.enter_async_context(self._make(self._share(peer_id, port)))
        except LocalResource:
            return await undo.enter_async_context(self._make(self._share(peer_id, 0)))

    def _share(self, peer_id: str, port: int) -> EngineSettings:
        return replace(self._settings, peer_id=peer_id, port=port, engines=self._count)

    def _divide(self) -> None:
        self._apply()
        self._timer = asyncio.get_running_loop().call_later(DIVIDE_EVERY, self._divide)

    def _apply(self) -> None:
        upload, download = self._limits
        rates = [engine.rates for engine in self._engines]
        ups, downs = divided(upload, [each.upload for each in rates]), divided(download, [e.download for e in rates])
        found = list(zip(ups, downs, strict=True))
        if found == self._divided:
            return
        self._divided = found
        for engine, (up, down) in zip(self._engines, found, strict=True):
            engine.limit(upload=up, download=down)

    def _first(self) -> Engine:
        if not self._engines:
            raise Unavailable("the swarm engine is not running")
        return self._engines[0]


def _can_be_split(metainfo: Metainfo) -> bool:
    """Private swarms have one listener a node; pieces of v1 are not those of the layout. At all nodes alike the first
    engine has such a torrent, so they find each other."""
    return metainfo.authority is None and len(metainfo.info_hash) != _V1_HASH
