"""A libtorrent session on the event loop: start, stop, and dispatch of notices to their torrents."""

import asyncio
import errno
from collections.abc import Callable

import libtorrent as lt

from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import LocalResource, Unavailable
from p2pmodel.swarm.engine import EngineSettings
from p2pmodel.swarm.libtorrent.alerts import (
    ALERT_MASK,
    AlertPump,
    Handle,
    ListenFailed,
    Listening,
    Notice,
    TorrentRemoved,
)
from p2pmodel.swarm.libtorrent.session_settings import session_settings
from p2pmodel.swarm.libtorrent.tracker_trust import trusting
from p2pmodel.swarm.peer_ids import new_peer_id

START_SECONDS = 10.0

Listener = Callable[[Notice], None]


class Session:
    """One libtorrent session, from `start` to `stop`."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._listeners: dict[Handle, Listener] = {}
        self._listening: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
        self.peer_id = new_peer_id()
        pack = session_settings(settings, ALERT_MASK, self.peer_id)
        with trusting(settings.ca_file):
            self._session: lt.session | None = lt.session(pack)
        _limit_all_addresses(self._session)
        self._pump = AlertPump(self._session, self._dispatch)

    async def start(self) -> None:
        """Return once peers can connect. Raises LocalResource if the session cannot listen at the address."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.shield(self._listening)
        except TimeoutError:
            raise Unavailable(f"the swarm engine did not start within {START_SECONDS:g} seconds") from None

    @property
    def address(self) -> tuple[str, int]:
        """Address and port for peers. A wildcard address stays one: the engine then listens on each of the host's."""
        return self._listening.result()

    def join(self, params: lt.add_torrent_params, listener: Listener) -> Handle:
        """Add a torrent; `listener` receives every notice about it.

        Synchronous (1 ms), so that the listener is registered before the first alert.
        """
        handle = self._live().add_torrent(params)
        self._listeners[handle] = listener
        return handle

    def forget(self, handle: Handle) -> None:
        """Remove a torrent; TorrentRemoved is the last notice to its listener."""
        self._live().remove_torrent(handle)

    def limit(self, *, upload: int, download: int) -> None:
        """Change the rate limits, in bytes a second; 0 is none."""
        self._live().apply_settings({"upload_rate_limit": upload, "download_rate_limit": download})

    def tick(self) -> None:
        """Request the counters of every changed torrent."""
        self._live().post_torrent_updates(lt.status_flags_t.query_pieces)

    def stop(self) -> None:
        """End the session. Its threads are joined with the GIL held: milliseconds, if all torrents are removed and
        their trackers have answered."""
        if self._session is None:
            return
        self._pump.stop()
        self._session = None  # the last reference
        self._pump.close()
        self._listeners.clear()

    def _live(self) -> lt.session:
        if self._session is None:
            raise Unavailable("the swarm engine is not running")
        return self._session

    def _dispatch(self, handle: Handle | None, notice: Notice) -> None:
        if handle is None:
            self._on_session(notice)
        elif handle in self._listeners:
            self._listeners[handle](notice)
            if isinstance(notice, TorrentRemoved):
                del self._listeners[handle]

    def _on_session(self, notice: Notice) -> None:
        if self._listening.done():
            return
        if isinstance(notice, Listening):
            wildcard = ListenAddress(self._settings.host, 0).unspecified
            self._listening.set_result((self._settings.host if wildcard else notice.address, notice.port))
        elif isinstance(notice, ListenFailed):
            self._listening.set_exception(_listen_error(notice))


def _listen_error(failure: ListenFailed) -> LocalResource:
    where = f"{failure.address}:{failure.port}"
    hint = "choose another port, or 0 for any" if failure.code == errno.EADDRINUSE else "check the listen address"
    return LocalResource(f"peers cannot reach us at {where}: {failure.message}", hint=hint)


def _limit_all_addresses(session: lt.session) -> None:
    """Apply the session's rate limits to loopback and private addresses, too."""
    bit = 1 << int(lt.session.global_peer_class_id)
    everyone = lt.ip_filter()
    everyone.add_rule("0.0.0.0", "255.255.255.255", bit)  # noqa: S104 - a range of peers, nothing is bound
    everyone.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", bit)
    session.set_peer_class_filter(everyone)
