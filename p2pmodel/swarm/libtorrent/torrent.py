"""One torrent in a libtorrent session."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import libtorrent as lt

from p2pmodel.core.connections import PeerConnection
from p2pmodel.errors import LocalResource, P2PModelError, Unavailable
from p2pmodel.swarm.engine import AddTorrent, Event, Rates, SwarmStatus
from p2pmodel.swarm.libtorrent.add_params import parameters
from p2pmodel.swarm.libtorrent.alerts import Handle
from p2pmodel.swarm.libtorrent.connections import connections_of
from p2pmodel.swarm.libtorrent.session import Session
from p2pmodel.swarm.libtorrent.session_settings import STOP_ANNOUNCE_SECONDS
from p2pmodel.swarm.libtorrent.torrent_state import Ask, Move, TorrentState, Verdict
from p2pmodel.swarm.recheck import recheck
from p2pmodel.swarm.zones import ZoneTraffic

ANSWER_SECONDS = 30.0
"""How long the disk may take to answer a rename, a flush or a fed piece."""
ECHO_SECONDS = 5.0
"""How long the session may take to answer what needs no disk."""
FED_UNFLUSHED = 128 << 20
"""Bytes fed before a flush is forced: feeding knows no back-pressure from the disk."""
FEEDS_AT_ONCE = 4
HOLD_AFTER = 0.1
"""Seconds for which peers may go on sending while the engine waits for the disk, unless it took longer the last time.
Letting them go again takes up to 0.1 s, which would be felt if every flush of a quick disk cost it."""
BEFORE_ALL = 7
"""The priority of pieces that libtorrent takes before all others, in their order, too; not quite so with rarest first,
where it makes a piece as urgent as one that a quarter as many peers have."""
_PEERS_KEPT = 100
"""Addresses remembered from `connect`, for joining again."""


class LibtorrentTorrent:
    """A SwarmTorrent."""

    def __init__(self, session: Session, request: AddTorrent, info_hash: str, piece_count: int, zone: str = "") -> None:
        self.left: Callable[[], object] = lambda: None
        """Called when the torrent has been removed."""
        self._session = session
        self._request = request
        self._info_hash = info_hash
        self._state = TorrentState(request.have, piece_count)
        self._handle: Handle | None = None
        self._in_order = False
        self._brought_first: set[int] = set()
        self._removed = False
        self._coming_or_going = asyncio.Lock()
        self._feeding = asyncio.Semaphore(FEEDS_AT_ONCE)
        self._fed = 0
        self._fences = 0
        self._hold_after = HOLD_AFTER
        self._crossed = ZoneTraffic(zone) if zone else None
        self._looking = asyncio.Lock()
        self._look: asyncio.Future[list[PeerConnection]] | None = None

    def join(self, params: lt.add_torrent_params) -> None:
        """Enter the session."""
        if self._in_order:
            params.flags |= lt.torrent_flags.sequential_download
        self._handle = self._session.join(params, self._state.notice)
        self._handle.post_status(lt.status_flags_t.query_pieces)

    @property
    def info_hash(self) -> str:
        return self._info_hash

    @property
    def metainfo(self) -> bytes:
        """The .torrent it was added with."""
        return self._request.metainfo

    def tick(self) -> None:
        """Ask for what the session's own updates do not tell: who has which piece. A seed has no use for it."""
        if self._handle and self._state.downloading:
            self._handle.post_piece_availability()

    def events(self) -> AsyncIterator[Event]:
        return self._state.events.open()

    def status(self) -> SwarmStatus:
        status = self._state.status()
        return replace(status, from_other_zones=self._crossed.total) if self._crossed else status

    @property
    def rates(self) -> Rates:
        """Bytes of content a second with its peers."""
        return self._state.rates

    async def connections(self) -> tuple[PeerConnection, ...]:
        return tuple(await self._look_around() or ())

    async def feed(self, piece: int, data: bytes) -> bool:
        async with self._feeding:
            handle = self._live()
            self._state.raise_failure()
            if piece in self._state.have:
                return True
            passed = await self._state.questions.ask(
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
        await self._see_senders()
        if not self._state.failure:
            with contextlib.suppress(LocalResource):  # told as an event; what was on disk before it still is
                await self.flush()
        return frozenset(self._state.durable)

    async def flush(self) -> None:
        self._state.raise_failure()
        passed = frozenset(self._state.have)
        async with self._fence():
            # Twice: the engine also flushes when a torrent finishes, and its answer to that looks the same as ours.
            await self._flush_cache()
            await self._flush_cache()
        self._state.raise_failure()  # a failed write is told before the flush is answered
        self._state.durable |= passed & self._state.have

    async def rename(self, files: Mapping[int, Path]) -> None:
        handle = self._live()
        await self._see_senders()
        paths = {file: str(path) for file, path in files.items()}
        posts = ((Move(file), partial(handle.rename_file, file, path)) for file, path in paths.items())
        async with self._fence():
            answers = await self._state.questions.ask_all(posts, timeout=ANSWER_SECONDS, what="move files")
        moved = {
            file: path for (file, path), answer in zip(paths.items(), answers, strict=True) if not answer.exception()
        }
        self._request = replace(self._request, files={**self._request.files, **moved})
        for answer in answers:
            answer.result()

    def take_in_order(self, on: bool) -> None:
        handle = self._live()
        self._in_order = on
        (handle.set_flags if on else handle.unset_flags)(lt.torrent_flags.sequential_download)

    def bring_first(self, piece: int) -> None:
        if piece not in self._brought_first:
            self._live().piece_priority(piece, BEFORE_ALL)
            self._brought_first.add(piece)

    def connect(self, address: str, port: int) -> None:
        self._live().connect_peer((address, port))
        self._request = replace(self._request, peers=(*self._request.peers[-_PEERS_KEPT:], (address, port)))

    def announce(self) -> None:
        self._live().force_reannounce(0, -1, lt.reannounce_flags_t.ignore_min_interval)

    def announce_to(self, trackers: tuple[str, ...]) -> None:
        # The list of trackers is new, so that all of them are told at once; who knows us takes what we say anew.
        entries = [lt.announce_entry(url) for url in trackers]
        for tier, entry in enumerate(entries):
            entry.tier = tier
        self._live().replace_trackers(entries)
        self._request = replace(self._request, trackers=trackers)

    async def resume(self) -> None:
        async with self._coming_or_going:
            handle = self._live()
            if not self._state.failure:
                return
            # What passed but was not written the engine believes it has, and nothing makes it forget: leave, and
            # join again with what is on disk.
            await self._leave(handle)
            doubtful = self._state.have - self._state.durable
            have = self._state.durable | await asyncio.to_thread(recheck, self._request, doubtful)
            self._request = replace(self._request, have=frozenset(have))
            params, _ = await asyncio.to_thread(parameters, self._request)
            self._state.restart(frozenset(have))
            self._brought_first.clear()  # whoever still waits for one says so again
            self.join(params)

    async def remove(self) -> None:
        async with self._coming_or_going:
            if self._removed:
                return
            self._removed = True
            if self._handle:
                await self._leave(self._handle)
            self._state.questions.refuse_all(_gone())
            self._state.events.close()
            self.left()

    async def _leave(self, handle: Handle) -> None:
        """Leave the session; one that hangs does not keep us from forgetting the torrent."""
        self._handle = None
        if self._look:  # it waits for the session, which must not end before
            await asyncio.wait({self._look}, timeout=ECHO_SECONDS)
        ask = self._state.questions.ask
        with contextlib.suppress(Unavailable):
            handle.pause()
            await ask(Ask.ECHO, handle.post_trackers, timeout=ECHO_SECONDS, what="pause a torrent")
            await self._hear_trackers()
            await ask(Ask.FLUSH, handle.flush_cache, timeout=ECHO_SECONDS, what="write to disk")
        with contextlib.suppress(Unavailable):
            forget = partial(self._session.forget, handle)
            await ask(Ask.REMOVE, forget, timeout=ECHO_SECONDS, what="remove a torrent")

    async def _hear_trackers(self) -> None:
        """Wait for the trackers' answers to our leaving: the session's end would wait for them with the GIL held."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_ANNOUNCE_SECONDS + 1):
                await self._state.all_told.wait()

    @contextlib.asynccontextmanager
    async def _fence(self) -> AsyncIterator[None]:
        """Around what the engine does only after all queued writes: if that takes long, peers may send nothing.

        The engine takes in without any bound what they send meanwhile (libtorrent 2.1, async_write on a fenced
        storage). 2 GiB onto a disk that writes 200 MB/s took 1.3 GiB of memory without this, 0.3 with it.
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

    async def _see_senders(self) -> None:
        """Count what came from other zones."""
        if self._crossed is not None and (seen := await self._look_around()) is not None:
            self._crossed.look(seen)

    async def _look_around(self) -> list[PeerConnection] | None:
        """Who is connected; None if that cannot be told now. A thread waits for the session: the alert that would tell
        us cannot be read from Python (libtorrent 2.1)."""
        async with self._looking:
            if self._handle is None or (self._look and not self._look.done()):
                return None
            self._look = asyncio.get_running_loop().run_in_executor(None, connections_of, self._handle)
            with contextlib.suppress(TimeoutError):  # a session that does not answer is not waited for here
                async with asyncio.timeout(ECHO_SECONDS):
                    return await asyncio.shield(self._look)
        return None

    async def _flush_cache(self) -> None:
        await self._state.questions.ask(
            Ask.FLUSH, self._live().flush_cache, timeout=ANSWER_SECONDS, what="write to disk"
        )

    def _live(self) -> Handle:
        if self._removed:
            raise _gone()
        if self._handle is None:
            raise Unavailable("the torrent is about to go on after a failure of the disk", hint="try again")
        return self._handle


def _gone() -> P2PModelError:
    return Unavailable("the torrent has left the swarm")
