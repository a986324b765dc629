"""Publish staged files as blobs under their cache names, and then the snapshot.

Files are hashed while their pieces arrive, so that little is left to do after the last piece.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from p2pmodel.core.content.layout import MIB, FileSpan
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.tasks import companions, in_the_end
from p2pmodel.errors import WrongTorrent
from p2pmodel.node.snapshot.inventory import Inventory, recover
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.file_links import FileLinks
from p2pmodel.store.files.range_set import remove_record
from p2pmodel.store.publish import name_blob, publish_blob, publish_snapshot, some_blob_locks
from p2pmodel.store.staging import Staging
from p2pmodel.store.verify import GrowingDigest, VouchedDigest
from p2pmodel.swarm.engine import SwarmTorrent
from p2pmodel.swarm.torrents import Metainfo

BATCH = 256
"""Files that are published together: they share each flush, each fence, and each run of a thread."""
BATCH_BYTES = 16 * MIB
"""Bytes after which a batch takes no more files, so that the workers share large files."""
CHECK_SOON, CHECK_LATE, CHECK_A_FILE = 0.02, 0.1, 1e-4
"""Seconds until the next look at what can be hashed, after one that found something, and after several that did not; or
for each large file. What came after the last look is hashed after the last piece."""
AHEAD_FROM = 16 * MIB
"""Bytes; smaller files are hashed quickly once they are whole."""


@dataclass
class DamagedFile(Exception):
    """Pieces of a staged file no longer pass their check: this disk changed them."""

    index: int
    path: str


class PublishObserver(Protocol):
    """Receives the events of a publisher."""

    async def on_disk(self) -> None:
        """A large file is whole and can be read; its hash follows."""

    def file_verified(self, index: int, *, hashed: bool) -> None:
        """File `index` is right: by the hash of the whole file (`hashed`), or by its pieces and a signature."""

    def publishing(self) -> None:
        """All blobs have their names; the snapshot follows."""


class Publisher:
    """Publishes the files of one torrent as they become whole. `file_is_whole` feeds it, `publish` does the work.

    `missing` is a live view of the missing pieces. `hashes_signed`: a signature states that the files which the trees
    of the torrent describe have the hub's hashes. Then a file is not hashed whole if the engine has checked every piece
    of it in this attempt: those of earlier runs lay on the disk unwatched.
    """

    def __init__(
        self,
        repo: RepoCache,
        staging: Staging,
        metainfo: Metainfo,
        torrent: SwarmTorrent,
        inventory: Inventory,
        *,
        links: FileLinks,
        observer: PublishObserver,
        missing: AbstractSet[int] = frozenset(),
        hashes_signed: bool = False,
    ) -> None:
        self._observer = observer
        self._repo = repo
        self._staging = staging
        self._metainfo = metainfo
        self._torrent = torrent
        self._inventory = inventory
        self._links = links
        spans = metainfo.layout.spans if hashes_signed else ()
        self._vouched = frozenset(span.index for span in spans if inventory.have.isdisjoint(span.pieces))
        """Files that are not hashed whole."""
        self._ahead = HashAhead(metainfo, inventory, missing, self._vouched)
        self._whole: asyncio.Queue[int] = asyncio.Queue()
        self._queued: set[int] = set()
        self._published: set[int] = set()
        self._all_published = asyncio.Event()

    def file_is_whole(self, index: int) -> None:
        """Every piece of file `index` of the manifest has passed its check (or it is empty)."""
        if index not in self._queued:
            self._queued.add(index)
            self._whole.put_nowait(index)

    async def publish(self, files: frozenset[int], refs: tuple[str, ...]) -> None:
        """Publish `files` as they become whole, then the snapshot and `refs`. Returns when all of it is visible.

        Raises DamagedFile, or WrongTorrent when the pieces are right but the hub's hash is not: the torrent is wrong.
        """
        if files:
            async with companions() as start:
                start(self._ahead.run(files))
                for _ in range(len(os.sched_getaffinity(0))):
                    start(self._work(files))
                await self._all_published.wait()
        self._observer.publishing()
        manifest = self._metainfo.manifest
        present = [manifest.files[i] for i in sorted(files)]
        await asyncio.to_thread(publish_snapshot, self._repo, manifest, present, refs)
        if self._all_pieces_checked(files):
            await asyncio.to_thread(self._staging.save_metainfo, self._metainfo.raw)

    def _all_pieces_checked(self, files: frozenset[int]) -> bool:
        """Whether this node has compared every tree of the torrent and every hash of the hub with the content. The tree
        of an adopted blob was not: its hash is right, but the torrent may be wrong about its pieces, and a later `seed`
        would publish that. Nor was the hash of a file that a signer vouches for."""
        filled = {span.index for span in self._metainfo.layout.spans if span.size}
        return filled <= files - self._inventory.complete - self._vouched

    async def _work(self, files: frozenset[int]) -> None:
        while True:
            batch = self._batch(await self._whole.get())
            staged = [index for index in batch if index not in self._inventory.complete]
            if staged:
                await self._torrent.flush()
                if any(self._file(index).size >= AHEAD_FROM for index in staged):
                    await self._observer.on_disk()
                if empty := [index for index in staged if not self._file(index).size]:
                    await asyncio.to_thread(self._publish_empty, empty)
                if filled := [index for index in staged if self._file(index).size]:
                    await self._publish_filled(filled)
            self._published.update(batch)
            if self._published >= files:
                self._all_published.set()

    def _batch(self, first: int) -> list[int]:
        batch, size = [first], self._file(first).size
        while not self._whole.empty() and len(batch) < BATCH and size < BATCH_BYTES:
            batch.append(self._whole.get_nowait())
            size += self._file(batch[-1]).size
        return batch

    def _file(self, index: int) -> ManifestFile:
        return self._metainfo.manifest.files[index]

    def _publish_empty(self, indexes: Sequence[int]) -> None:
        for index in indexes:
            self._inventory.paths[index].touch()
            publish_blob(self._repo, self._file(index), self._inventory.paths[index])

    async def _publish_filled(self, indexes: Sequence[int]) -> None:
        for index, found in zip(indexes, await self._ahead.digests(indexes), strict=True):
            if found != self._file(index).etag:
                await self._explain(index, self._file(index), self._inventory.paths[index], found)
            self._observer.file_verified(index, hashed=index not in self._vouched)
        waiting = set(indexes)
        while waiting:
            waiting -= await self._name_some(sorted(waiting))

    async def _name_some(self, indexes: Sequence[int]) -> set[int]:
        """Give at least one of `indexes` its blob name, and return all that have it now: blobs that another process
        downloads meanwhile do not delay the others."""
        files = {index: self._file(index) for index in indexes}
        async with some_blob_locks(self._repo, list(files.values())) as held:
            ours = {index: file for index, file in files.items() if file in held}
            await in_the_end(asyncio.to_thread(self._name, ours))
        return set(ours)

    @translated()
    def _name(self, files: Mapping[int, ManifestFile]) -> None:
        """Turn staged files into blobs while the engine serves them: its links lead to the open file meanwhile."""
        found = {}
        with self._repo.naming, self._repo.opened("blobs", make=True) as blobs:
            for index, file in files.items():
                staged = self._inventory.paths[index]
                self._repo.staged.claims.check()
                self._links.hold(index, staged)
                found[file.etag] = name_blob(blobs, file, staged)
                remove_record(staged)
                self._links.lead_to_blob(index, file)
            blobs.sync()
            self._repo.record_verified(found)

    async def _explain(self, index: int, file: ManifestFile, staged: Path, found: str) -> None:
        """Raise DamagedFile if this disk damaged the staged file, WrongTorrent if the pieces are right."""
        span = self._metainfo.layout.spans[index]
        right = await asyncio.to_thread(recover, staged, span, self._metainfo, frozenset())
        if len(right) < span.piece_count:
            raise DamagedFile(index, file.path)
        raise WrongTorrent(
            f"the torrent's pieces of {file.path} hash to {found}, but its manifest says {file.etag}",
            hint="the torrent was built from wrong bytes: use another seeder or the mirrors",
        )


class HashAhead:
    """Computes the hub's hash of every staged file while some of its pieces are still in `missing`, a live view.

    The hash of a file proceeds in order, so it advances as far as the file's pieces arrive in order. Files in `vouched`
    only become durable.
    """

    def __init__(
        self,
        metainfo: Metainfo,
        inventory: Inventory,
        missing: AbstractSet[int],
        vouched: AbstractSet[int] = frozenset(),
    ) -> None:
        self._metainfo = metainfo
        self._missing = missing
        self._waiting: set[int] = set()
        self._digests = {
            index: (VouchedDigest if index in vouched else GrowingDigest)(inventory.paths[index], file)
            for index, file in enumerate(metainfo.manifest.files)
            if index not in inventory.complete
        }

    async def run(self, files: frozenset[int]) -> None:
        """Hash `files` as their pieces arrive, until cancelled."""
        self._waiting = {index for index in files & self._digests.keys() if self._is_large(index)}
        pause = CHECK_LATE
        while True:
            pause = min(2 * pause, CHECK_LATE)
            for index in list(self._waiting):
                span, digest = self._metainfo.layout.spans[index], self._digests[index]
                before = digest.hashed
                final = self._final(span, before)
                while final > digest.hashed and await asyncio.to_thread(digest.advance, final):
                    pass
                if digest.hashed > before:
                    pause = CHECK_SOON
            await asyncio.sleep(max(pause, CHECK_A_FILE * len(self._waiting)))

    async def digests(self, indexes: Sequence[int]) -> list[str]:
        """The hashes of these files, which are whole and flushed; their data is durable on return."""
        self._waiting.difference_update(indexes)
        for index in filter(self._is_large, indexes):
            while await asyncio.to_thread(self._digests[index].advance, self._metainfo.manifest.files[index].size):
                pass
        return await asyncio.to_thread(lambda: [self._digests[index].sealed() for index in indexes])

    def _is_large(self, index: int) -> bool:
        return self._metainfo.manifest.files[index].size >= AHEAD_FROM

    def _final(self, span: FileSpan, hashed: int) -> int:
        """Bytes from the beginning of the file that have passed their check: `hashed` or more."""
        piece = span.first_piece + hashed // self._metainfo.layout.piece_length
        while piece in span.pieces and piece not in self._missing:
            piece += 1
        return min((piece - span.first_piece) * self._metainfo.layout.piece_length, span.size)
