"""The swarm engine on libtorrent: one session, one address, many torrents."""

import asyncio
import contextlib
import tempfile
from typing import Self

from p2pmodel.errors import InvalidInput, Unavailable
from p2pmodel.swarm.engine import AddTorrent, EngineSettings, Rates
from p2pmodel.swarm.libtorrent.add_params import info_hash_of, parameters
from p2pmodel.swarm.libtorrent.magnet_exchange import MagnetExchange, magnet_parameters
from p2pmodel.swarm.libtorrent.private_torrents import is_private
from p2pmodel.swarm.libtorrent.session import Session
from p2pmodel.swarm.libtorrent.torrent import LibtorrentTorrent

TICK_SECONDS = 0.25
"""Seconds between updates of the status."""
CLOSE_SECONDS = 10.0


class LibtorrentEngine:
    """An Engine. All runs on the event loop, except loading and rechecking of torrents."""

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self._settings = settings or EngineSettings()
        self._torrents: dict[str, LibtorrentTorrent] = {}
        self._exchanges: set[str] = set()
        self._session: Session | None = None
        self._ticker: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._session = Session(self._settings)
        with contextlib.ExitStack() as undo:
            undo.callback(self._session.stop)
            await self._session.start()
            undo.pop_all()
        self._tick()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(torrent.remove() for torrent in list(self._torrents.values())))
        if self._ticker:
            self._ticker.cancel()
        self._live().stop()
        self._session = None

    @property
    def address(self) -> tuple[str, int]:
        return self._live().address

    @property
    def private_address(self) -> tuple[str, int]:
        return self._live().private_address

    @property
    def peer_id(self) -> str:
        return self._live().peer_id

    async def add(self, request: AddTorrent) -> LibtorrentTorrent:
        params, spans = await asyncio.to_thread(parameters, request)
        info_hash = info_hash_of(params)
        if params.ti is not None and is_private(params.ti):
            await self._live().open_private()
        self._check_new(info_hash)
        torrent = LibtorrentTorrent(
            self._live(),
            request,
            info_hash,
            spans,
            zone=self._settings.zone,
            on_removed=lambda: self._torrents.pop(info_hash, None),
        )
        torrent.join(params)
        self._torrents[info_hash] = torrent
        self._set_parole()
        return torrent

    @property
    def rates(self) -> Rates:
        rates = [
            torrent.rates for torrent in self._torrents.values()
        ]  # read every second, so without `status`, which copies
        return Rates(sum(each.upload for each in rates), sum(each.download for each in rates))

    def limit(self, *, upload: int, download: int) -> None:
        self._live().limit(upload=upload, download=download)

    async def fetch_metainfo(self, magnet: str, *, peers: tuple[tuple[str, int], ...] = (), timeout: float) -> bytes:
        params = magnet_parameters(magnet, peers)
        info_hash = info_hash_of(params)
        if info_hash in self._torrents:
            return self._torrents[info_hash].metainfo
        self._check_new(info_hash)
        self._exchanges.add(info_hash)
        try:
            with tempfile.TemporaryDirectory(prefix="p2pmodel-") as folder:
                params.save_path = folder
                async with MagnetExchange(self._live(), params) as exchange:
                    return await exchange.metainfo(timeout)
        finally:
            self._exchanges.discard(info_hash)

    def _live(self) -> Session:
        if self._session is None:
            raise Unavailable("the swarm engine is not running")
        return self._session

    def _set_parole(self) -> None:
        self._live().set_parole(not any(torrent.at_padded_pieces for torrent in self._torrents.values()))

    def _check_new(self, info_hash: str) -> None:
        if info_hash in self._torrents or info_hash in self._exchanges:
            raise InvalidInput(f"the torrent {info_hash} is in the swarm engine already")

    def _tick(self) -> None:
        self._live().tick()
        for torrent in self._torrents.values():
            torrent.tick()
        self._set_parole()
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
