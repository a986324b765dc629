"""Exchange of pieces with other nodes in the swarms of partial torrents, before the torrent exists."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmodel.coordinator.assembly.partial_torrents import roots_in
from p2pmodel.coordinator.client.torrent_download import download_torrent
from p2pmodel.coordinator.client.urls import as_peer
from p2pmodel.core.tasks import in_the_end
from p2pmodel.errors import LocalResource, P2PModelError
from p2pmodel.node.assembly.context import AssemblyContext
from p2pmodel.node.assembly.membership import Membership
from p2pmodel.node.assembly.slices import StagedFiles
from p2pmodel.node.trouble import PeerTrouble
from p2pmodel.swarm.engine import AddTorrent, DiskFailed, PieceVerified, SwarmTorrent
from p2pmodel.swarm.torrents import Metainfo


class Exchange:
    """This node's part in the partial torrents of one assembly. `paths`: where each file is stored, by its index."""

    def __init__(
        self, context: AssemblyContext, membership: Membership, staged: StagedFiles, paths: Sequence[Path]
    ) -> None:
        self._context = context
        self._membership = membership
        self._pieces = membership.pieces
        self._staged = staged
        self._paths = paths
        self._torrents: list[SwarmTorrent] = []
        self._trouble = PeerTrouble(context.reporter.note, connected=self._connected)

    @property
    def unreachable(self) -> str:
        """Which peers cannot connect to this node, or it to them; "" without such trouble."""
        return self._trouble.unreachable(missing=bool(self._torrents))

    def _connected(self) -> int:
        return sum(torrent.status().peers for torrent in self._torrents)

    async def take_part(self, url: str) -> None:
        """Stay in the swarm of the partial torrent at `url` until cancelled; then its pieces are on disk and on record.

        A partial torrent that cannot be downloaded is skipped: the final torrent has its pieces. Raises NoSpace or
        LocalResource when the disk fails.
        """
        try:
            context = self._context
            metainfo = await download_torrent(
                url,
                stall=context.settings.coordinator_timeout,
                http=context.http,
                coordinators=context.coordinators,
            )
            if not self._context.fits(metainfo):
                return
            roots = roots_in(self._context.layout, metainfo.trees)
            engine = await self._context.engine.started()
            torrent = await engine.add(self._request(metainfo, roots))
        except LocalResource:
            raise
        except P2PModelError:
            return
        received: set[int] = set()
        self._torrents.append(torrent)
        try:
            await self._follow(torrent, roots, received)
        finally:
            self._torrents.remove(torrent)
            await in_the_end(self._leave(torrent, received))

    def _request(self, metainfo: Metainfo, roots: Mapping[int, bytes]) -> AddTorrent:
        swarm = self._context.settings
        return AddTorrent(
            metainfo=metainfo.raw,
            save_path=self._context.repo.folder,
            files={metainfo.file_indexes[index]: str(path) for index, path in enumerate(self._paths)},
            have=frozenset(piece for piece, root in roots.items() if self._pieces.has(piece, root)),
            pieces=frozenset(piece for piece in roots if self._pieces.lacks(piece)),
            trackers=tuple(as_peer(url, swarm.zone, swarm.advertise) for url in self._trackers(metainfo)),
        )

    def _trackers(self, metainfo: Metainfo) -> tuple[str, ...]:
        """The tracker of the coordinator that leads the assembly, and no other that the torrent names."""
        coordinator = self._membership.coordinator
        return (coordinator.announce_url,) if coordinator else metainfo.trackers

    async def _follow(self, torrent: SwarmTorrent, roots: Mapping[int, bytes], received: set[int]) -> None:
        async for event in torrent.events():
            match event:
                case PieceVerified(piece) if piece in roots:
                    received.add(piece)
                    self._membership.progressed()
                    self._pieces.receive(piece, roots[piece])
                case DiskFailed():
                    raise event.error()
                case _:
                    self._trouble.handle(event)
                    self._trouble.look()

    async def _leave(self, torrent: SwarmTorrent, received: set[int]) -> None:
        await torrent.remove()
        for piece in sorted(received):
            place = self._context.layout.piece_range(piece)
            async with self._staged.using(place.span.index) as partial:
                partial.note(place.offset, place.length)
