"""The swarm engine on libtorrent: one session, one address, many torrents."""

import asyncio
import contextlib
import errno
import tempfile
from collections.abc import Callable
from typing import Self

import libtorrent as lt

from p2pmodel.errors import InvalidInput, LocalResource, Unavailable
from p2pmodel.swarm.add_params import info_hash_of, parameters
from p2pmodel.swarm.alerts import ALERT_MASK, AlertPump, Handle, ListenFailed, Listening, Notice, Removed
from p2pmodel.swarm.engine import AddTorrent, EngineSettings
from p2pmodel.swarm.libtorrent_torrent import LibtorrentTorrent
from p2pmodel.swarm.magnet_exchange import MagnetExchange, magnet_parameters
from p2pmodel.swarm.session_settings import session_settings

TICK_SECONDS = 0.25
"""How often status is refreshed."""
START_SECONDS = 10.0
CLOSE_SECONDS = 10.0


class LibtorrentEngine:
    """An Engine. Everything but the loading of torrents happens on the event loop of `__aenter__`."""

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self._settings = settings or EngineSettings()
        self._listeners: dict[Handle, Callable[[Notice], None]] = {}
        self._torrents: dict[str, LibtorrentTorrent] = {}
        self._exchanges: set[str] = set()
        self._listening: asyncio.Future[tuple[str, int]] | None = None
        self._session: lt.session | None = None
        self._pump: AlertPump | None = None
        self._ticker: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._listening = asyncio.get_running_loop().create_future()
        self._session = lt.session(session_settings(self._settings, ALERT_MASK))
        _limit_all_addresses(self._session)
        self._pump = AlertPump(self._session, self._dispatch)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._listening
        except TimeoutError:
            await self._stop()
            raise Unavailable(f"the swarm engine did not start within {START_SECONDS:g} seconds") from None
        except BaseException:
            await self._stop()
            raise
        self._tick()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(torrent.remove() for torrent in list(self._torrents.values())))
        await self._stop()

    @property
    def address(self) -> tuple[str, int]:
        if self._listening is None:
            raise RuntimeError("the engine has not been entered")
        return self._listening.result()

    async def add(self, request: AddTorrent) -> LibtorrentTorrent:
        params, spans = await asyncio.to_thread(parameters, request)
        info_hash = info_hash_of(params)
        self._check_new(info_hash)
        # Synchronous (1 ms): the torrent must be known here before its first alert is dispatched.
        handle = self._live().add_torrent(params)
        torrent = LibtorrentTorrent(
            handle, request.metainfo, info_hash, spans=spans, have=request.have, forget=self._forget
        )
        self._torrents[info_hash] = torrent
        self._listeners[handle] = torrent.notice
        handle.post_status(lt.status_flags_t.query_pieces)
        return torrent

    async def fetch_metainfo(self, magnet: str, *, peers: tuple[tuple[str, int], ...] = (), timeout: float) -> bytes:
        params = magnet_parameters(magnet, peers)
        info_hash = info_hash_of(params)
        if info_hash in self._torrents:
            return self._torrents[info_hash].metainfo
        self._check_new(info_hash)
        with await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="p2pmodel-") as folder:
            params.save_path = folder
            handle = self._live().add_torrent(params)
            exchange = MagnetExchange(handle, self._forget)
            self._listeners[handle] = exchange.notice
            self._exchanges.add(info_hash)
            try:
                return await exchange.metainfo(timeout)
            finally:
                self._exchanges.discard(info_hash)
                await exchange.leave()

    async def _stop(self) -> None:
        if self._ticker:
            self._ticker.cancel()
        if self._pump:
            self._pump.stop()
        # Ends the session: its threads are joined, with the GIL held. Nothing is left for it to wait for, because
        # the torrents have been removed and their trackers told.
        self._session = None
        if self._pump:
            self._pump.close()
        self._listeners.clear()

    def _live(self) -> lt.session:
        if self._session is None:
            raise Unavailable("the swarm engine is not running")
        return self._session

    def _check_new(self, info_hash: str) -> None:
        if info_hash in self._torrents or info_hash in self._exchanges:
            raise InvalidInput(f"the torrent {info_hash} is in the swarm engine already")

    def _forget(self, handle: Handle) -> None:
        for info_hash, torrent in list(self._torrents.items()):
            if torrent.handle == handle:
                del self._torrents[info_hash]
        self._live().remove_torrent(handle)

    def _tick(self) -> None:
        self._live().post_torrent_updates(lt.status_flags_t.query_pieces)
        for torrent in self._torrents.values():
            torrent.tick()
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _dispatch(self, handle: Handle | None, notice: Notice) -> None:
        if handle is None:
            self._on_session(notice)
        elif handle in self._listeners:
            self._listeners[handle](notice)
            if isinstance(notice, Removed):
                del self._listeners[handle]

    def _on_session(self, notice: Notice) -> None:
        if self._listening is None or self._listening.done():
            return
        if isinstance(notice, Listening):
            self._listening.set_result((notice.address, notice.port))
        elif isinstance(notice, ListenFailed):
            self._listening.set_exception(_listen_error(notice))


def _listen_error(failure: ListenFailed) -> LocalResource:
    where = f"{failure.address}:{failure.port}"
    hint = "choose another port, or 0 for any" if failure.code == errno.EADDRINUSE else "check the listen address"
    return LocalResource(f"peers cannot reach us at {where}: {failure.message}", hint=hint)


def _limit_all_addresses(session: lt.session) -> None:
    """Without this the session's rate limits pass over loopback and private addresses."""
    bit = 1 << int(lt.session.global_peer_class_id)
    filter_ = lt.ip_filter()
    filter_.add_rule("0.0.0.0", "255.255.255.255", bit)  # noqa: S104 - a range of peers, nothing is bound
    filter_.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", bit)
    session.set_peer_class_filter(filter_)
