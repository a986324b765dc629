"""Joining a magnet's swarm for its metadata alone: the info dictionary (BEP 9) and the piece layers (BEP 52)."""

import asyncio
import contextlib
from functools import partial
from typing import Self

import libtorrent as lt

from p2pmodel.errors import Unavailable
from p2pmodel.swarm.libtorrent.alerts import Described, Exported, Notice, TorrentRemoved
from p2pmodel.swarm.libtorrent.questions import PendingReplies
from p2pmodel.swarm.libtorrent.session import Session
from p2pmodel.swarm.libtorrent.twins import twins_of
from p2pmodel.swarm.magnet import parse_magnet

_EXPORT, _REMOVE = "export", "remove"
_LAYERS_SECONDS = 0.05
"""Pause between looks whether the piece layers are complete: no alert tells."""
_REMOVE_SECONDS = 5.0


def magnet_parameters(magnet: str, peers: tuple[tuple[str, int], ...]) -> lt.add_torrent_params:
    """The magnet for libtorrent: none of the payload wanted, so that no file appears. Raises InvalidInput."""
    wanted = parse_magnet(magnet)
    params = lt.add_torrent_params()
    params.info_hashes = lt.info_hash_t(lt.sha256_hash(bytes.fromhex(wanted.info_hash)))
    params.trackers = list(wanted.trackers)
    params.tracker_tiers = list(range(len(wanted.trackers)))
    params.peers = list(peers)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    # With nothing wanted libtorrent still asks its peers for the layers, as long as it does not hang up for being
    # "finished": session_settings sets close_redundant_connections so.
    params.flags |= lt.torrent_flags.default_dont_download | lt.torrent_flags.duplicate_is_error
    return params


class MagnetExchange:
    """One magnet being resolved, joined while entered."""

    def __init__(self, session: Session, params: lt.add_torrent_params) -> None:
        self._session = session
        self._params = params
        self._described = asyncio.Event()
        self._questions = PendingReplies()

    async def __aenter__(self) -> Self:
        self._handle = self._session.join(self._params, self._on_notice)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        forget = partial(self._session.forget, self._handle)
        with contextlib.suppress(Unavailable):
            await self._questions.ask(_REMOVE, forget, timeout=_REMOVE_SECONDS, what="remove a magnet")

    async def metainfo(self, timeout: float) -> bytes:
        """The .torrent once it is complete. Raises Unavailable after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._described.wait()
                self._refuse_twins()
                return await self._complete(timeout)
        except TimeoutError:
            lacking = "its piece hashes" if self._described.is_set() else "its metadata"
            raise Unavailable(
                f"nobody sent the magnet's torrent within {timeout:g} seconds ({lacking} did not come)",
                hint="check that a seeder is up and reachable, or hand over the .torrent",
            ) from None

    def _refuse_twins(self) -> None:
        """libtorrent 2.1 takes a peer's answer for the first file with a pieces root, and waits for ever for the piece
        hashes of the second. Files of one piece have none."""
        described = self._handle.torrent_file()
        if described is not None and twins_of(described):
            raise Unavailable(
                "a magnet cannot bring this snapshot: two of its large files have the same content",
                hint="hand over the .torrent, or name the coordinator with --coordinator",
            )

    async def _complete(self, timeout: float) -> bytes:
        while (found := await self._export(timeout)) is None:  # noqa: ASYNC110 - libtorrent tells nobody
            await asyncio.sleep(_LAYERS_SECONDS)
        return found

    async def _export(self, timeout: float) -> bytes | None:
        found: bytes | None = await self._questions.ask(
            _EXPORT,
            lambda: self._handle.save_resume_data(lt.save_resume_flags_t.save_info_dict),
            timeout=timeout,
            what="export a torrent",
        )
        return found

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice, Described):
            self._described.set()
        elif isinstance(notice, Exported):
            self._questions.answer(_EXPORT, notice.metainfo)
        elif isinstance(notice, TorrentRemoved):
            self._questions.answer(_REMOVE)
