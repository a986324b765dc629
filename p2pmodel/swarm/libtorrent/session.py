"""A libtorrent session on the event loop: start, stop, and dispatch of notices to their torrents."""

import asyncio
import errno
from collections.abc import Callable

import libtorrent as lt

from p2pmodel.core.allocator import keep_freed_memory
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.egress import Egress
from p2pmodel.errors import LocalResource, Unavailable
from p2pmodel.swarm.engine import Admissions, EngineSettings
from p2pmodel.swarm.libtorrent.address_filters import admitting, of_web_seeds
from p2pmodel.swarm.libtorrent.alerts import (
    ALERT_MASK,
    AlertPump,
    Handle,
    ListenFailed,
    Listening,
    Notice,
    TorrentRemoved,
)
from p2pmodel.swarm.libtorrent.private_torrents import AdmissionList
from p2pmodel.swarm.libtorrent.session_settings import private_interfaces, session_settings
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
        self._private: asyncio.Future[tuple[str, int]] | None = None
        """The address for private torrents, once it was asked for."""
        self._admissions = AdmissionList()
        self._web_seeds: dict[Handle, Egress] = {}
        """The rules for web seeds."""
        self._parole = True
        self.peer_id = settings.peer_id or new_peer_id()
        pack = session_settings(settings, ALERT_MASK, self.peer_id)
        self._interfaces: str = pack["listen_interfaces"]
        keep_freed_memory()
        with trusting(settings.ca_file):
            self._session: lt.session | None = lt.session(pack)
        _limit_all_addresses(self._session)
        self._pump = AlertPump(self._session, self._dispatch)

    async def start(self) -> None:
        """Return once peers can connect. Raises LocalResource if the session cannot listen at the address."""
        await _listened(self._listening)

    async def open_private(self) -> None:
        """Return once peers of private torrents can connect, too. Raises as `start`."""
        if self._private is None:
            self._private = asyncio.get_running_loop().create_future()
            self._listen_private(self._settings.private_port)
        await _listened(self._private)

    @property
    def private_address(self) -> tuple[str, int]:
        """Address and port for peers of private torrents. Raises Unavailable before the first one."""
        if self._private is None or not self._private.done():
            raise Unavailable("the swarm engine has no private swarm")
        return self._private.result()

    @property
    def address(self) -> tuple[str, int]:
        """Address and port for peers. A wildcard address stays one: the engine then listens on each of the host's."""
        return self._listening.result()

    def join(self, params: lt.add_torrent_params, listener: Listener, egress: Egress | None = None) -> Handle:
        """Add a torrent; `listener` receives every notice about it. `egress` is the rule for its web seeds.

        Synchronous (1 ms), so that the listener is registered before the first alert.
        """
        if egress is not None:
            self._filter(egress)  # first: a web seed connects at once
        handle = self._live().add_torrent(params)
        self._listeners[handle] = listener
        if egress is not None:
            self._web_seeds[handle] = egress
        return handle

    def admit(self, handle: Handle, admissions: Admissions) -> None:
        """Let these addresses alone exchange with a private torrent. Connections to others end at once."""
        if self._admissions.put(handle, admissions):
            self._filter()

    def guard(self, handle: Handle, egress: Egress | None) -> None:
        """Let the web seeds of a torrent, and their redirects, lead to addresses of this rule alone; None: it has no
        more web seeds."""
        before = self._web_seeds.get(handle)
        if egress is not None:
            self._web_seeds[handle] = egress
        else:
            self._web_seeds.pop(handle, None)
        if egress != before:
            self._filter()

    def forget(self, handle: Handle) -> None:
        """Remove a torrent; TorrentRemoved is the last notice to its listener."""
        self._live().remove_torrent(handle)
        guarded = self._web_seeds.pop(handle, None) is not None
        if self._admissions.drop(handle) or guarded:
            self._filter()

    def limit(self, *, upload: int, download: int) -> None:
        """Change the rate limits, in bytes a second; 0 is none."""
        self._live().apply_settings({"upload_rate_limit": upload, "download_rate_limit": download})

    def set_parole(self, on: bool) -> None:
        """Whether senders of a wrong piece download whole pieces alone from then on, so that the next one convicts.

        libtorrent (2.1) counts the padding at the end of a file as sent by another peer. A peer on parole may then
        continue no piece with padding that it has begun. Where other pieces are missing, it downloads these, and is
        acquitted or banned. Where none is, no peer finishes the piece.
        """
        if on != self._parole:
            self._parole = on
            self._live().apply_settings({"use_parole_mode": on})

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

    def _listen_private(self, port: int) -> None:
        # The session keeps the listeners that it has, if they are named as before.
        both = f"{self._interfaces},{private_interfaces(self._settings, port)}"
        self._live().apply_settings({"listen_interfaces": both})

    def _filter(self, *more: Egress) -> None:
        """Set the session's one address filter. It holds for private torrents and, with or without their flag, for web
        seeds; where there are private torrents, theirs is the stricter one. `more`: rules of web seeds to come."""
        private = self._admissions.exist
        found = admitting(self._admissions.addresses) if private else of_web_seeds([*self._web_seeds.values(), *more])
        self._live().set_ip_filter(found)

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
        if not isinstance(notice, Listening | ListenFailed):
            return
        waiting = self._private if notice.private else self._listening
        if waiting is None or waiting.done():
            return
        if isinstance(notice, Listening):
            wildcard = ListenAddress(self._settings.host, 0).unspecified
            waiting.set_result((self._settings.host if wildcard else notice.address, notice.port))
        else:
            waiting.set_exception(_listen_error(notice))


async def _listened(listening: "asyncio.Future[tuple[str, int]]") -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            await asyncio.shield(listening)
    except TimeoutError:
        raise Unavailable(f"the swarm engine did not start within {START_SECONDS:g} seconds") from None


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
