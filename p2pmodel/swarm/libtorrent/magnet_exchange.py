"""Download of a magnet's metadata from its swarm: the info dictionary (BEP 9) and the piece layers (BEP 52)."""

import asyncio
import contextlib
from functools import partial
from typing import Self

import libtorrent as lt

from p2pmodel.errors import Unavailable
from p2pmodel.swarm.libtorrent.add_params import duplicates_of
from p2pmodel.swarm.libtorrent.alerts import Described, Exported, Notice, TorrentRemoved
from p2pmodel.swarm.libtorrent.replies import PendingReplies
from p2pmodel.swarm.libtorrent.session import Session
from p2pmodel.swarm.magnet import parse_magnet

_EXPORT, _REMOVE = "export", "remove"
_LAYERS_SECONDS = 0.05
"""Seconds between checks for complete piece layers, which raise no alert."""
_REMOVE_SECONDS = 5.0


def magnet_parameters(magnet: str, peers: tuple[tuple[str, int], ...]) -> lt.add_torrent_params:
    """The magnet's parameters: no payload is wanted, so that no file is created. Raises InvalidInput."""
    wanted = parse_magnet(magnet)
    params = lt.add_torrent_params()
    params.info_hashes = lt.info_hash_t(lt.sha256_hash(bytes.fromhex(wanted.info_hash)))
    params.trackers = list(wanted.trackers)
    params.tracker_tiers = list(range(len(wanted.trackers)))
    params.peers = list(peers)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    params.flags &= ~lt.torrent_flags.apply_ip_filter  # it is for private torrents, which have no magnet exchange
    # Without wanted pieces libtorrent still requests the layers, if it does not disconnect as "finished":
    # session_settings disables close_redundant_connections.
    params.flags |= lt.torrent_flags.default_dont_download | lt.torrent_flags.duplicate_is_error
    return params


class MagnetExchange:
    """One magnet; the context joins its swarm."""

    def __init__(self, session: Session, params: lt.add_torrent_params) -> None:
        self._session = session
        self._params = params
        self._described = asyncio.Event()
        self._replies = PendingReplies()

    async def __aenter__(self) -> Self:
        self._handle = self._session.join(self._params, self._on_notice)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        forget = partial(self._session.forget, self._handle)
        with contextlib.suppress(Unavailable):
            await self._replies.ask(_REMOVE, forget, timeout=_REMOVE_SECONDS, what="remove a magnet")

    async def metainfo(self, timeout: float) -> bytes:
        """The .torrent once it is complete. Raises Unavailable after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._described.wait()
                self._refuse_duplicates()
                return await self._complete(timeout)
        except TimeoutError:
            lacking = "its piece hashes" if self._described.is_set() else "its metadata"
            raise Unavailable(
                f"no peer sent the magnet's torrent within {timeout:g} seconds ({lacking} did not arrive)",
                hint="check that a seeder is running and reachable, or use the .torrent",
            ) from None

    def _refuse_duplicates(self) -> None:
        """Raise Unavailable for files with a common piece layer. libtorrent 2.1 assigns a peer's piece hashes to the
        first file with that pieces root, and waits for ever for those of the second. Files of one piece have no
        layer."""
        described = self._handle.torrent_file()
        if described is not None and duplicates_of(described):
            raise Unavailable(
                "this snapshot cannot be fetched by magnet: two of its large files have the same content",
                hint="use the .torrent, or name the coordinator with --coordinator",
            )

    async def _complete(self, timeout: float) -> bytes:
        while (found := await self._export(timeout)) is None:  # noqa: ASYNC110 - libtorrent raises no alert
            await asyncio.sleep(_LAYERS_SECONDS)
        return found

    async def _export(self, timeout: float) -> bytes | None:
        found: bytes | None = await self._replies.ask(
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
            self._replies.answer(_EXPORT, notice.metainfo)
        elif isinstance(notice, TorrentRemoved):
            self._replies.answer(_REMOVE)
