"""A snapshot that arrives in a cache in pieces, through the store, as a download from mirrors does."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.growing_file import GrowingFile, GrowingFileSink
from p2pmodel.store.publish import publish_blob, publish_snapshot
from tests.support.hub_snapshot import HubSnapshot, snapshot_of

Piece = tuple[str, int, bytes]
"""A path, an offset, and the bytes there."""


@dataclass
class SlowDownload:
    """`snapshot` on its way into `cache`; pieces of `chunk` bytes of the weights, in a random order by `seed`."""

    cache: HubCache
    snapshot: HubSnapshot
    seed: int = 0
    chunk: int = 4096
    pause: float = 0.0
    """Seconds between two pieces."""
    before: Callable[["SlowDownload", int, Piece], Piece | None] = lambda _download, _number, piece: piece
    """Gets every piece with its number before it is written: another piece, or None to leave it out."""
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    written: int = 0

    @classmethod
    def of(cls, folder: Path, root: Path, **options: object) -> "SlowDownload":
        """Of the files in `folder`, into a cache below `root`."""
        contents = {path.name: path.read_bytes() for path in folder.iterdir()}
        return cls(HubCache(root / "hub"), snapshot_of(contents, "org/model"), **options)  # type: ignore[arg-type]

    @property
    def repo(self) -> RepoCache:
        return self.cache.repo(self.snapshot.manifest.repo)

    @property
    def weights(self) -> list[ManifestFile]:
        return [file for file in self.snapshot.manifest.files if file.path.endswith(".safetensors")]

    @property
    def folder(self) -> Path:
        return self.repo.snapshot(self.snapshot.commit)

    def pieces(self) -> list[Piece]:
        """All pieces of the weights, shuffled."""
        found = [
            (file.path, offset, bytes(self.snapshot.contents[file.path][offset : offset + self.chunk]))
            for file in self.weights
            for offset in range(0, file.size, self.chunk)
        ]
        random.Random(self.seed).shuffle(found)
        return found

    async def run(self) -> None:
        """Let it arrive: the small files first."""
        manifest = self.snapshot.manifest
        self.repo.staged.list(manifest)
        for file in manifest.files:
            if file not in self.weights:
                staged = self.repo.staged.path_of(file)
                staged.write_bytes(bytes(self.snapshot.contents[file.path]))
                await asyncio.to_thread(publish_blob, self.repo, file, staged)
        async with AsyncExitStack() as stack:
            sinks: dict[str, GrowingFileSink] = {}
            for file in self.weights:
                path = self.repo.staged.path_of(file)
                partial = await stack.enter_async_context(
                    PartialFile.open(path, file, piece_length_for(manifest.total_size))
                )
                writer = stack.enter_context(GrowingFile(self.repo, file).written(path, partial.available))
                sinks[file.path] = GrowingFileSink(partial, writer)
            await self._write(sinks, self.pieces())
            for path, sink in sinks.items():
                if await sink.digest() != self.snapshot.file(path).etag:
                    await sink.discard()
                    await self._write(sinks, [piece for piece in self.pieces() if piece[0] == path])
                    assert await sink.digest() == self.snapshot.file(path).etag
        for file in self.weights:
            await asyncio.to_thread(publish_blob, self.repo, file, self.repo.staged.path_of(file))
        await asyncio.to_thread(publish_snapshot, self.repo, manifest, manifest.files, ("main",))
        self.complete.set()

    async def _write(self, sinks: dict[str, GrowingFileSink], pieces: Sequence[Piece]) -> None:
        for number, piece in enumerate(pieces):
            given = self.before(self, number, piece)
            if given is not None:
                await sinks[given[0]].write(given[1], given[2])
                self.written += 1
            await asyncio.sleep(self.pause)
