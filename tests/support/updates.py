"""A cache with an older revision of a file, and the torrent of the next one."""

from pathlib import Path

from p2pmodel.core.content.layout import FileSpan, piece_length_for
from p2pmodel.node.snapshot.inventory import Inventory, take_inventory
from p2pmodel.node.snapshot.reuse.known_parts import KnownParts
from p2pmodel.store.cache import RepoCache
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm
from tests.support.stored import publish, stage

PIECE = piece_length_for(0)
PATH = "model.safetensors"


class Update:
    """The content `old` of a file is in the cache, and `new` has the torrent."""

    def __init__(self, root: Path, old: bytes, new: bytes, *, old_path: str = PATH) -> None:
        self.new = new
        self.swarm = Swarm(root, snapshot_of({PATH: new, "README.md": b"new"}))
        cache = self.swarm.cache()
        publish(cache, snapshot_of({old_path: old, "README.md": b"old"}))
        self.repo: RepoCache = cache.repo(self.swarm.metainfo.manifest.repo)

    @property
    def span(self) -> FileSpan:
        return next(span for span in self.swarm.metainfo.layout.spans if span.path == PATH)

    def stage(self, *pieces: int) -> None:
        """Stage these pieces of the new file, as downloaded."""
        path = stage(self.repo, self.swarm.metainfo.manifest, self.swarm.snapshot.file(PATH), b"")
        with path.open("r+b") as file:
            for piece in pieces:
                file.seek(piece * PIECE)
                file.write(self.new[piece * PIECE : (piece + 1) * PIECE])

    def take(self) -> Inventory:
        """The inventory; every piece in it is right."""
        found = take_inventory(self.repo, self.swarm.metainfo, known=frozenset())
        path = found.paths[self.span.index]
        content = path.read_bytes() if path.exists() else b""
        for piece in found.have & set(self.span.pieces):
            place = self.swarm.metainfo.layout.piece_range(piece)
            end = place.offset + place.length
            assert content[place.offset : end] == self.new[place.offset : end]
        return found

    def missing(self) -> set[int]:
        """The pieces of the file that are not found, counted from 0."""
        found = self.take()
        return {piece - self.span.first_piece for piece in set(self.span.pieces) - found.have}

    def parts(self, found: Inventory) -> KnownParts:
        """What is known of the pieces that are not in `found`."""
        parts = KnownParts.of(found.reuse, self.swarm.metainfo, found.paths, found.have)
        assert parts is not None
        return parts
