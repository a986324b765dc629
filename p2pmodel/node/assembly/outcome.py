"""How an assembly ends at one node: with a torrent, with the complete snapshot, or without either."""

import asyncio
from dataclasses import dataclass

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.torrent_download import download_torrent
from p2pmodel.errors import P2PModelError
from p2pmodel.node.assembly.context import AssemblyContext
from p2pmodel.node.assembly.piece_state import AssemblyPieces
from p2pmodel.node.snapshot.piece_record import PieceRecord
from p2pmodel.swarm.torrents import Metainfo


class AssemblyFailed(Exception):
    """There will be no torrent. The text is the reason."""


class AssemblySilent(AssemblyFailed):
    """Nothing comes from the other nodes."""


TRIES = 3
"""Attempts to download the assembled torrent: a full link delays it, and the swarm has all that is missing."""
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class AssemblyOutcome:
    """The end of an assembly at this node; `metainfo` is None without a torrent.

    `pulled`: pieces that came from mirrors in this run, `pulled_bytes` together. `exchanged`: pieces that came from
    other nodes, if they are here; `exchanged_bytes`: of those known to have come. `complete`: the snapshot is published
    here. `cut_off`: nothing comes from the other nodes.
    """

    metainfo: Metainfo | None
    pulled: frozenset[int] = frozenset()
    pulled_bytes: int = 0
    exchanged: frozenset[int] = frozenset()
    exchanged_bytes: int = 0
    complete: bool = False
    cut_off: bool = False

    @classmethod
    def of(
        cls, pieces: AssemblyPieces, metainfo: Metainfo | None, *, complete: bool = False, cut_off: bool = False
    ) -> "AssemblyOutcome":
        """The outcome with these pieces."""
        from_others, size = pieces.from_others, pieces.size(pieces.exchanged)
        return cls(metainfo, pieces.pulled, pieces.pulled_bytes, from_others, size, complete, cut_off)


async def assembled_torrent(
    context: AssemblyContext, pieces: AssemblyPieces, coordinator: Coordinator, info_hash: str
) -> Metainfo:
    """Download the assembled torrent, and record which of its pieces are here, so that they are not checked again.

    Raises AssemblyFailed if it cannot be had or is not that of the snapshot.
    """
    metainfo = await _downloaded(context, coordinator, info_hash)
    if not context.fits(metainfo) or metainfo.info_hash != info_hash:
        raise AssemblyFailed("the coordinator made another torrent than that of the snapshot")
    have = pieces.matching(metainfo)
    await asyncio.to_thread(PieceRecord(context.repo.staged, metainfo).save, have, have)
    return metainfo


async def _downloaded(context: AssemblyContext, coordinator: Coordinator, info_hash: str) -> Metainfo:
    reason = ""
    for _ in range(TRIES):
        try:
            return await download_torrent(
                coordinator.torrent_url(info_hash),
                stall=context.settings.coordinator_timeout,
                http=context.http,
                coordinators=(coordinator,),
            )
        except P2PModelError as error:
            reason = error.what
        await asyncio.sleep(_PAUSE)
    raise AssemblyFailed(reason)
