"""One torrent in a libtorrent session."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import libtorrent as lt

from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.swarm import alerts, engine
from p2pmodel.swarm.add_params import PieceSpans
from p2pmodel.swarm.session_settings import STOP_ANNOUNCE_SECONDS
from p2pmodel.swarm.torrent_state import Ask, Move, TorrentState, Verdict

ANSWER_SECONDS = 30.0
"""How long the disk may take to answer a rename, a flush or a fed piece."""
ECHO_SECONDS = 5.0
"""How long the session may take to answer what needs no disk."""
FED_UNFLUSHED = 128 << 20
"""Bytes fed before a flush is forced: feeding knows no back-pressure from the disk."""
FEEDS_AT_ONCE = 4


class LibtorrentTorrent:
    """A SwarmTorrent. The engine calls `notice` for every notice about it."""

    def __init__(
        self,
        handle: lt.torrent_handle,
        metainfo: bytes,
        info_hash: str,
        *,
        spans: PieceSpans,
        have: frozenset[int],
        forget: Callable[[lt.torrent_handle], None],
    ) -> None:
        self.handle = handle
        self.metainfo = metainfo
        self._info_hash = info_hash
        self._spans = spans
        self._forget = forget
        self._state = TorrentState(have, spans.piece_count)
        self._feeding = asyncio.Semaphore(FEEDS_AT_ONCE)
        self._fed = 0
        self._removed = False

    @property
    def info_hash(self) -> str:
        return self._info_hash

    def tick(self) -> None:
        """Ask for what the session's own updates do not tell: who has which piece. A seed has no use for it."""
        if not self._removed and self._state.downloading:
            self.handle.post_piece_availability()

    def events(self) -> AsyncIterator[engine.Event]:
        return self._state.events.open()

    def status(self) -> engine.SwarmStatus:
        return self._state.status()

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
                await self._flush_cache()
            return bool(passed)

    async def durable(self) -> frozenset[int]:
        passed = frozenset(self._state.have)
        # A piece leaves the download queue when all its blocks are written, which may be after it passed.
        queued = await asyncio.to_thread(self._live().get_download_queue)
        self._live().post_status(lt.status_flags_t.query_pieces)
        await self._settle()  # and a piece whose write failed is no longer in `have`
        return (passed & self._state.have) - {part["piece_index"] for part in queued}

    async def flush(self) -> None:
        passed = frozenset(self._state.have)
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
        # The engine also flushes by itself, and its answer to that looks the same: look what is on disk.
        while asyncio.get_running_loop().time() < deadline:
            await self._flush_cache()
            self._state.raise_failure()
            if passed & self._state.have <= await self.durable():
                return
        raise Unavailable(f"the disk did not take all pieces within {ANSWER_SECONDS:g} seconds")

    async def rename(self, file: int, path: Path) -> None:
        handle = self._live()
        await self._state.questions.ask(
            Move(file),
            lambda: handle.rename_file(file, str(path)),
            timeout=ANSWER_SECONDS,
            what=f"move a file to {path}",
        )

    def want(self, files: frozenset[int]) -> None:
        self._live().prioritize_pieces(self._spans.priorities(files))

    def connect(self, address: str, port: int) -> None:
        self._live().connect_peer((address, port))

    def announce(self) -> None:
        self._live().force_reannounce(0, -1, lt.reannounce_flags_t.ignore_min_interval)

    async def resume(self) -> None:
        handle = self._live()
        await self._settle()  # the failures of before have all been told
        self._state.failure = None
        handle.clear_error()
        handle.unset_flags(lt.torrent_flags.upload_mode)
        handle.resume()

    async def remove(self) -> None:
        if self._removed:
            return
        handle = self.handle
        self._removed = True
        with contextlib.suppress(Unavailable):  # a session that hangs does not keep us from forgetting the torrent
            await self._tell_trackers(handle)
            await self._state.questions.ask(Ask.FLUSH, handle.flush_cache, timeout=ECHO_SECONDS, what="write to disk")
        with contextlib.suppress(Unavailable):
            await self._state.questions.ask(
                Ask.REMOVE, lambda: self._forget(handle), timeout=ECHO_SECONDS, what="remove a torrent"
            )
        self._state.questions.refuse_all(_gone())
        self._state.events.close()

    async def _tell_trackers(self, handle: lt.torrent_handle) -> None:
        """Leave, and wait for the trackers' answers: the session's end would wait for them with the GIL held."""
        handle.pause()
        await self._state.questions.ask(Ask.ECHO, handle.post_trackers, timeout=ECHO_SECONDS, what="pause a torrent")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_ANNOUNCE_SECONDS + 1):
                await self._state.all_told.wait()

    async def _flush_cache(self) -> None:
        await self._state.questions.ask(
            Ask.FLUSH, self._live().flush_cache, timeout=ANSWER_SECONDS, what="write to disk"
        )

    async def _settle(self) -> None:
        """Return once every notice about what happened before the call has been handled."""
        await self._state.questions.ask(Ask.ECHO, self._live().post_trackers, timeout=ECHO_SECONDS, what="answer")

    def _live(self) -> lt.torrent_handle:
        if self._removed:
            raise _gone()
        return self.handle

    def notice(self, notice: alerts.Notice) -> None:
        """Take in one notice."""
        self._state.notice(notice)


def _gone() -> P2PModelError:
    return Unavailable("the torrent has left the swarm")
