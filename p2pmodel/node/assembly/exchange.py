"""Taking what others have pulled of a snapshot that has no torrent yet, and giving what we have, chapter by chapter."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from p2pmodel.config.settings import SwarmSettings
from p2pmodel.coordinator.client.torrent_download import download_torrent
from p2pmodel.coordinator.client.urls import in_zone
from p2pmodel.coordinator.partial_torrents import roots_in
from p2pmodel.core.layout import Layout
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.tasks import in_the_end
from p2pmodel.errors import LocalResource, P2PModelError
from p2pmodel.node.assembly.slices import StagedFiles
from p2pmodel.swarm.engine import AddTorrent, DiskFailed, Engine, PieceVerified, SwarmTorrent
from p2pmodel.swarm.torrents import Metainfo


class Exchange:
    """This node's part in the chapters of one birth.

    `paths`: where each file lies, by its index. `has(piece, root)` says whether that content is here, `wants(piece)`
    whether it is neither here nor on its way; `on_piece` is told of each that came, with its root.
    """

    def __init__(
        self,
        manifest: Manifest,
        layout: Layout,
        *,
        folder: Path,
        paths: Sequence[Path],
        staged: StagedFiles,
        engine: Callable[[], Awaitable[Engine]],
        settings: SwarmSettings,
        has: Callable[[int, bytes], bool],
        wants: Callable[[int], bool],
        on_piece: Callable[[int, bytes], None],
    ) -> None:
        self._manifest = manifest
        self._layout = layout
        self._folder = folder
        self._paths = paths
        self._staged = staged
        self._engine = engine
        self._settings = settings
        self._has = has
        self._wants = wants
        self._on_piece = on_piece

    async def take_part(self, url: str) -> None:
        """Be in the swarm of the chapter at `url` until cancelled; then what it brought is on disk and on record.

        A chapter that cannot be had is passed over: the torrent will bring its pieces. Raises NoSpace or LocalResource
        when the disk fails.
        """
        try:
            metainfo = await download_torrent(url, stall=self._settings.coordinator_timeout)
            if metainfo.manifest != self._manifest:
                return
            roots = roots_in(self._layout, metainfo.trees)
            torrent = await (await self._engine()).add(self._request(metainfo, roots))
        except LocalResource:
            raise
        except P2PModelError:
            return
        brought: set[int] = set()
        try:
            await self._follow(torrent, roots, brought)
        finally:
            await in_the_end(self._leave(torrent, brought))

    def _request(self, metainfo: Metainfo, roots: Mapping[int, bytes]) -> AddTorrent:
        return AddTorrent(
            metainfo=metainfo.raw,
            save_path=self._folder,
            files={metainfo.file_indexes[index]: str(path) for index, path in enumerate(self._paths)},
            have=frozenset(piece for piece, root in roots.items() if self._has(piece, root)),
            pieces=frozenset(piece for piece in roots if self._wants(piece)),
            trackers=tuple(in_zone(url, self._settings.zone) for url in metainfo.trackers),
        )

    async def _follow(self, torrent: SwarmTorrent, roots: Mapping[int, bytes], brought: set[int]) -> None:
        async for event in torrent.events():
            match event:
                case PieceVerified(piece) if piece in roots:
                    brought.add(piece)
                    self._on_piece(piece, roots[piece])
                case DiskFailed():
                    raise event.error()

    async def _leave(self, torrent: SwarmTorrent, brought: set[int]) -> None:
        await torrent.remove()
        for piece in sorted(brought):
            place = self._layout.piece_range(piece)
            async with self._staged.using(place.span.index) as partial:
                partial.note(place.offset, place.length)
