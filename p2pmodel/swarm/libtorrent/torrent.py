"""One torrent in a libtorrent session."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

import libtorrent as lt

from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.errors import InvalidInput, LocalResource, P2PModelError, Unavailable
from p2pmodel.swarm.engine import AddTorrent, Admissions, Event, Rates, SwarmCertificate, SwarmStatus, WebSeeds
from p2pmodel.swarm.libtorrent.add_params import PieceSpans
from p2pmodel.swarm.libtorrent.alerts import Handle
from p2pmodel.swarm.libtorrent.connections import ZoneTraffic, connections_of
from p2pmodel.swarm.libtorrent.private_torrents import is_private, present
from p2pmodel.swarm.libtorrent.session import Session
from p2pmodel.swarm.libtorrent.session_settings import STOP_ANNOUNCE_SECONDS
from p2pmodel.swarm.libtorrent.torrent_state import Ask, TorrentState, Verdict
from p2pmodel.swarm.peer_ids import by_node

ANSWER_SECONDS = 30.0
"""Timeout of a flush or a fed piece, which need the disk."""
ECHO_SECONDS = 5.0
"""Timeout of requests that need no disk."""
FED_UNFLUSHED = 128 << 20
"""Fed bytes before a forced flush: feeding has no back-pressure from the disk."""
FEEDS_AT_ONCE = 4
HOLD_AFTER = 0.1
"""Seconds after which peers are stopped while the engine waits for the disk; at once, if the last wait was longer. The
restart takes up to 0.1 s, too much for every flush of a quick disk."""
HIGHEST = 7
"""Piece priority that comes before all others in sequential mode. In rarest-first mode it makes a piece as urgent as
one of a quarter as many peers."""


class LibtorrentTorrent:
    """A SwarmTorrent."""

    def __init__(
        self,
        session: Session,
        request: AddTorrent,
        info_hash: str,
        spans: PieceSpans,
        *,
        zone: str,
        on_removed: Callable[[], object],
    ) -> None:
        self._session = session
        self._on_removed = on_removed
        self._request = request
        self._info_hash = info_hash
        wanted = frozenset(piece for piece, level in enumerate(spans.priorities(request.wanted)) if level)
        if request.pieces is not None:
            wanted &= request.pieces
        self._state = TorrentState(request.have, spans.piece_count, wanted=wanted, padded=spans.padded)
        self._handle: Handle | None = None
        self._prioritized: set[int] = set()
        self._fits_web_seeds = spans.fit_web_seeds
        self._web_seeds: frozenset[str] = frozenset()
        self._removed = False
        self._private = False
        self._removing = asyncio.Lock()
        self._feeding = asyncio.Semaphore(FEEDS_AT_ONCE)
        self._fed = 0
        self._fences = 0
        self._hold_after = HOLD_AFTER
        self._zone = zone
        self._zone_traffic = ZoneTraffic(zone) if zone else None
        self._reading = asyncio.Lock()
        self._read: asyncio.Future[list[PeerConnection]] | None = None

    def join(self, params: lt.add_torrent_params) -> None:
        """Add the torrent to the session."""
        if params.ti is not None and is_private(params.ti):
            # Before it has a peer: the filter is in place, and the certificate follows at once.
            self._private = True
        seeds = WebSeeds(tuple(params.url_seeds), self._request.web_seeds.egress)
        self._web_seeds = frozenset(seeds.urls)
        self._handle = self._session.join(params, self._state.notice, seeds.egress if seeds.urls else None)
        if self._private:
            self.admit(self._request.admissions)
            if self._request.certificate is not None:
                self.renew(self._request.certificate)
        self._handle.post_status(lt.status_flags_t.query_pieces)

    @property
    def info_hash(self) -> str:
        return self._info_hash

    @property
    def metainfo(self) -> bytes:
        """The .torrent of the request."""
        return self._request.metainfo

    def tick(self) -> None:
        """Request the availability of pieces, which is not in the session's updates. A seed does not need it."""
        if self._handle and self._state.downloading:
            self._handle.post_piece_availability()

    @property
    def at_padded_pieces(self) -> bool:
        """Whether it misses pieces, and each one that it misses ends with padding."""
        return self._state.at_padded_pieces

    def events(self) -> AsyncIterator[Event]:
        return self._state.events.open()

    def status(self) -> SwarmStatus:
        status = self._state.status()
        return replace(status, from_other_zones=self._zone_traffic.total) if self._zone_traffic else status

    @property
    def rates(self) -> Rates:
        """Payload bytes a second with its peers."""
        return self._state.rates

    async def connections(self) -> tuple[PeerConnection, ...]:
        return by_node(await self._read_connections() or ())

    async def feed(self, piece: int, data: bytes) -> bool:
        async with self._feeding:
            handle = self._live()
            self._state.raise_failure()
            if piece in self._state.have:
                return True
            passed = await self._state.replies.ask(
                Verdict(piece),
                lambda: handle.add_piece(piece, data, 0),
                timeout=ANSWER_SECONDS,
                what=f"check piece {piece}",
            )
            self._fed += len(data)
            if self._fed >= FED_UNFLUSHED:
                self._fed = 0
                await self.flush()
            return bool(passed)

    async def durable(self) -> frozenset[int]:
        await self._count_zones()
        if not self._state.failure:
            with contextlib.suppress(LocalResource):  # also an event; pieces on disk before stay there
                await self.flush()
        return frozenset(self._state.durable)

    async def flush(self) -> None:
        self._state.raise_failure()
        passed = frozenset(self._state.have)
        async with self._fence():
            # Twice: the engine also flushes at the end of a download, with the same alert as for our request.
            await self._flush_cache()
            await self._flush_cache()
        self._state.raise_failure()  # the alert of a failed write precedes that of the flush
        self._state.flushed(passed)

    def set_sequential(self, on: bool) -> None:
        handle = self._live()
        (handle.set_flags if on else handle.unset_flags)(lt.torrent_flags.sequential_download)

    def prioritize(self, piece: int) -> None:
        if piece not in self._prioritized:
            self._live().piece_priority(piece, HIGHEST)
            self._prioritized.add(piece)

    def connect(self, address: str, port: int) -> None:
        self._live().connect_peer((address, port))

    @property
    def fits_web_seeds(self) -> bool:
        return self._fits_web_seeds

    def set_web_seeds(self, seeds: WebSeeds) -> None:
        handle, before = self._live(), self._web_seeds
        self._web_seeds = frozenset(seeds.urls)
        for url in before - self._web_seeds:
            handle.remove_url_seed(url)
        self._session.guard(handle, seeds.egress if seeds.urls else None)  # first: a web seed connects at once
        for url in self._web_seeds - before:
            handle.add_url_seed(url)

    def announce(self) -> None:
        # Not force_reannounce: libtorrent 2.1 sends that at the next whole second.
        self.set_trackers(self._request.trackers)

    def set_trackers(self, trackers: tuple[str, ...]) -> None:
        # A new list of trackers makes libtorrent announce to all of them at once; they update our entry.
        entries = [lt.announce_entry(url) for url in trackers]
        for tier, entry in enumerate(entries):
            entry.tier = tier
        self._live().replace_trackers(entries)
        self._request = replace(self._request, trackers=trackers)

    def renew(self, certificate: SwarmCertificate) -> None:
        self._check_private()
        present(self._live(), certificate)

    def admit(self, admissions: Admissions) -> None:
        self._check_private()
        self._session.admit(self._live(), admissions)

    async def remove(self) -> None:
        async with self._removing:
            if self._removed:
                return
            self._removed = True
            if self._handle:
                await self._leave(self._handle)
            self._state.replies.refuse_all(_gone())
            self._state.events.close()
            self._on_removed()

    async def _leave(self, handle: Handle) -> None:
        """Leave the session. A session that hangs does not prevent it."""
        self._handle = None
        if self._read:  # it uses the session, which must not end before
            await asyncio.wait({self._read}, timeout=ECHO_SECONDS)
        ask = self._state.replies.ask
        with contextlib.suppress(Unavailable):
            handle.pause()
            await ask(Ask.ECHO, handle.post_trackers, timeout=ECHO_SECONDS, what="pause a torrent")
            await self._await_trackers()
            await ask(Ask.FLUSH, handle.flush_cache, timeout=ECHO_SECONDS, what="write to disk")
        with contextlib.suppress(Unavailable):
            forget = partial(self._session.forget, handle)
            await ask(Ask.REMOVE, forget, timeout=ECHO_SECONDS, what="remove a torrent")

    async def _await_trackers(self) -> None:
        """Wait for the trackers' answers to `stopped`: the session's end would wait for them with the GIL held."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_ANNOUNCE_SECONDS + 1):
                await self._state.all_answered.wait()

    @contextlib.asynccontextmanager
    async def _fence(self) -> AsyncIterator[None]:
        """Context for a request that the engine runs after all queued writes: stop the peers if that takes long.

        The engine buffers received bytes without a bound meanwhile (libtorrent 2.1, async_write on a fenced storage).
        2 GiB onto a disk of 200 MB/s took 1.3 GiB of memory without this, 0.3 with it.
        """
        handle, loop = self._live(), asyncio.get_running_loop()
        began = loop.time()
        self._fences += 1
        hold = loop.call_later(self._hold_after, handle.set_download_limit, 1)
        try:
            yield
        finally:
            hold.cancel()
            self._hold_after = HOLD_AFTER if loop.time() - began < HOLD_AFTER else 0.0
            self._fences -= 1
            if not self._fences and self._handle is handle:
                handle.set_download_limit(-1)

    async def _count_zones(self) -> None:
        """Update the bytes from other zones."""
        if self._zone_traffic is not None and (seen := await self._read_connections()) is not None:
            self._zone_traffic.update(seen)

    async def _read_connections(self) -> list[PeerConnection] | None:
        """The connections; None if the session does not respond. A thread waits for the session: the alert with the
        same data is not readable from Python (libtorrent 2.1)."""
        async with self._reading:
            if self._handle is None or (self._read and not self._read.done()):
                return None
            self._read = asyncio.get_running_loop().run_in_executor(None, connections_of, self._handle, self._zone)
            with contextlib.suppress(TimeoutError):  # do not wait for a session that does not respond
                async with asyncio.timeout(ECHO_SECONDS):
                    return await asyncio.shield(self._read)
        return None

    async def _flush_cache(self) -> None:
        await self._state.replies.ask(Ask.FLUSH, self._live().flush_cache, timeout=ANSWER_SECONDS, what="write to disk")

    def _check_private(self) -> None:
        if not self._private:
            raise InvalidInput("certificates and admissions are for private swarms alone")

    def _live(self) -> Handle:
        if self._handle is None:
            raise _gone()
        return self._handle


def _gone() -> P2PModelError:
    return Unavailable("the torrent has left the swarm")
