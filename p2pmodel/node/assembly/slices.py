"""Slices of a snapshot's files, written to the staged files, where mirroring and transfers find them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.tasks import in_thread
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.staging import StagedContents

MOST_OPEN = 64
"""Unused files that stay open."""


class Slice:
    """Bytes `start` to `end` of a file, to be downloaded by itself: a RangeSink.

    A part of a file has no hash, so its bytes are accepted as they come; the whole file is verified in the end.
    """

    def __init__(self, partial: PartialFile, file: ManifestFile, start: int, end: int) -> None:
        self._partial = partial
        self._file = file
        self._start = start
        self._end = end

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._file.size

    def missing(self) -> list[tuple[int, int]]:
        """(offset, length) of the missing ranges of the slice."""
        ranges = ((max(o, self._start), min(o + length, self._end)) for o, length in self._partial.missing())
        return [(start, end - start) for start, end in ranges if start < end]

    async def write(self, offset: int, data: bytes) -> None:
        """Write `data`."""
        await self._partial.write(offset, data)

    async def digest(self) -> str:
        """The file's etag: a slice has no digest of its own."""
        return self._file.etag

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes written there."""
        return await self._partial.read(offset, length)

    async def forget(self, offset: int, length: int) -> None:
        """Mark this range as missing."""
        await self._partial.forget(offset, length)

    async def discard(self) -> None:
        """Mark the slice as missing."""
        await self._partial.forget(self._start, self._end - self._start)


class StagedFiles:
    """The partial files of one snapshot, each opened once for all users. `async with` closes them."""

    def __init__(self, contents: StagedContents, manifest: Manifest, piece_length: int) -> None:
        self._contents = contents
        self._manifest = manifest
        self._piece_length = piece_length
        self._paths: tuple[Path, ...] = ()
        self._open: dict[int, PartialFile] = {}
        """The file that was used last comes last."""
        self._users: Counter[int] = Counter()
        self._changing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for partial in self._open.values():
            await partial.__aexit__(*exc_info)
        self._open.clear()

    @asynccontextmanager
    async def using(self, index: int) -> AsyncIterator[PartialFile]:
        """File `index` of the manifest, open."""
        async with self._changing:
            partial = self._open.pop(index, None) or await self._opened(index)
            self._open[index] = partial
            self._users[index] += 1
        try:
            yield partial
        finally:
            self._users[index] -= 1
        async with self._changing:
            await self._close_idle()

    async def _opened(self, index: int) -> PartialFile:
        file = self._manifest.files[index]

        def opened() -> PartialFile:
            self._paths = self._paths or self._contents.paths_of(self._manifest.files)
            return PartialFile.open(self._paths[index], file, self._piece_length)

        return await in_thread(opened, PartialFile.close)

    async def _close_idle(self) -> None:
        idle = [index for index in self._open if not self._users[index]]
        for index in idle[: max(len(idle) - MOST_OPEN, 0)]:
            await asyncio.to_thread(self._open[index].close)
            del self._open[index]
