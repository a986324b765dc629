"""Files that clients read while they grow: a transfer or a pull-through mirror writes, any number of readers follow.

Invariants, to re-check when editing:
1. Clients check only the size, and the hub's hash covers the whole file. So the last `HOLD_BACK` bytes are readable
   only after the hash was right, or once the file has its blob name. Before that no client can complete the file.
2. Bytes that were readable may prove wrong. The content is first marked corrupt, then every reader that began before
   ends. A client that resumed would append right bytes to wrong ones; after the mark it gets the whole file instead.
3. Every wait ends: by bytes, by corruption, by `published` or by `fail`, which is also called for a cancellation.
4. Nothing waits for a reader, and no reader holds bytes in memory: each reads from disk at its own pace.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self
from weakref import WeakValueDictionary

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.tasks import Version, in_thread
from p2pmodel.errors import Unavailable
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import BlobKey, RepoCache
from p2pmodel.store.files.partial_file import PartialFile

HOLD_BACK = MIB

POLL = 0.2
"""Seconds between two looks at bytes that are written on request: their writer reports no progress, and a request may
need repetition. A transfer reports its progress as often."""
OPEN_POLL = POLL / 4
"""Seconds between two looks for such a file on disk."""


@dataclass(eq=False, slots=True)
class _Generation:
    """The bytes at `path` up to the next corruption: they are verified or corrupt for all their readers at once."""

    path: Path
    available: Callable[[int], int]
    request: Callable[[int], object] | None
    attached: bool = True
    """Whether a writer still writes."""
    verified: bool = False
    corrupt: bool = False


@dataclass(eq=False, slots=True)
class _Outcome:
    """How the download ended for the readers that began before."""

    published: bool = False
    error: Exception | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error.with_traceback(None)


class GrowingFile:
    """Content `file` of `repo` while it is downloaded. Writers come and go; readers stay until an outcome.

    `published` and `fail` concern the readers that began before; a reader that begins later waits for the next outcome.
    """

    def __init__(self, repo: RepoCache, file: ManifestFile) -> None:
        self.repo = repo
        self.file = file
        self._generation: _Generation | None = None
        self._outcome = _Outcome()
        self.version = Version()
        """Grows with every change that a waiting reader must see."""

    @contextmanager
    def written(
        self, path: Path, available: Callable[[int], int], request: Callable[[int], object] | None = None
    ) -> Iterator["GrowingFileWriter"]:
        """Offer the bytes at `path` to readers while the context lasts.

        `available(offset)`: the end of the bytes present from `offset` without a gap; `offset` or less if there are
        none. `request(offset)` is called again and again while a reader waits for that byte, and returns whether it is
        missing; without `request` the writer must report its progress. Readers follow a later writer to the same path.
        """
        generation = self._generation
        if generation is not None and generation.path == path and not (generation.attached or generation.verified):
            generation.available, generation.request, generation.attached = available, request, True
        else:
            generation = self._generation = _Generation(path, available, request)
        writer = GrowingFileWriter(self, generation)
        self.version.advance()
        try:
            yield writer
        finally:
            writer.detach()

    def published(self) -> None:
        """The blob is in the cache: readers go on if it is the file they opened."""
        self._end(published=True)

    def fail(self, error: Exception) -> None:
        """No more bytes come: readers get those that are available, then `error`."""
        self._end(error=error)

    async def open(self) -> "GrowingFileReader":
        """A reader, once there is a file to open. Raises what `fail` is called with, and Unavailable if the published
        blob was removed."""
        outcome = self._outcome
        while True:
            outcome.check()
            version, generation = self.version.value, self._generation
            if generation is not None and not generation.attached:
                generation = None
            place = self._published if outcome.published else partial(_open, generation.path) if generation else None
            if place is not None:
                opened = await in_thread(place, lambda file: file and file.close())
                if opened is not None:
                    return GrowingFileReader(self, opened, None if outcome.published else generation, outcome)
                if outcome.published:
                    raise Unavailable(f"{self.file.path} of {self.repo.repo} was removed", hint="try again")
            await self.next_change(version, generation, 0, every=OPEN_POLL)

    def _published(self) -> BinaryIO | None:
        with translated(), suppress(FileNotFoundError):
            return self.repo.open_blob(self.file)
        return None

    async def next_change(self, version: int, generation: _Generation | None, offset: int, *, every: float) -> None:
        """Wait for a later version than `version`; for content written on request at most `every` seconds."""
        request = generation.request if generation is not None and generation.attached else None
        if request is not None:
            request(offset)
        await self.version.beyond(version, timeout=every if request else None)

    @property
    def takes_requests(self) -> bool:
        """Whether it is written on request now: it comes from a swarm."""
        generation = self._generation
        return generation is not None and generation.attached and generation.request is not None

    def request(self, offset: int) -> bool:
        """Ask the writer for the byte at `offset` before others; whether it is missing, and comes on request."""
        generation = self._generation
        if generation is None or not generation.attached or generation.request is None:
            return False
        return bool(generation.request(offset))

    async def corrupt(self, generation: _Generation) -> _Generation:
        """Mark the file, then end the readers of `generation`; the generation of later readers."""
        await asyncio.to_thread(self.repo.mark_corrupt, self.file)  # invariant 2
        generation.corrupt = True
        following = replace(generation, verified=False, corrupt=False)
        if self._generation is generation:
            self._generation = following
        self.version.advance()
        return following

    def _end(self, *, published: bool = False, error: Exception | None = None) -> None:
        self._outcome.published, self._outcome.error = published, error
        self._outcome = _Outcome()
        self.version.advance()


class GrowingFileWriter:
    """Reports on the bytes that a writer writes."""

    def __init__(self, growing: GrowingFile, generation: _Generation) -> None:
        self._growing = growing
        self._generation = generation

    def progressed(self) -> None:
        """More bytes are available."""
        self._growing.version.advance()

    def verified(self) -> None:
        """The hash of the whole file is right: all of it is readable."""
        self._generation.verified = True
        self._growing.version.advance()

    @property
    def is_verified(self) -> bool:
        """Whether `verified` was called for the present bytes."""
        return self._generation.verified

    async def corrupt(self) -> None:
        """Some of the bytes are wrong: end the readers that began before. Later ones read the remaining bytes."""
        self._generation = await self._growing.corrupt(self._generation)

    def detach(self) -> None:
        """The writer has ended: the bytes stay available to their readers, and no new reader opens them."""
        self._generation.attached = False


class GrowingFileReader:
    """One client's view: `file` has the bytes, `ready` returns which of them may be read. A context closes it."""

    def __init__(self, growing: GrowingFile, file: BinaryIO, generation: _Generation | None, outcome: _Outcome) -> None:
        self.file = file
        self._growing = growing
        self._generation = generation
        """None: all of the file may be read."""
        self._outcome = outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.file.close()

    def available(self, offset: int) -> int:
        """The end of what may be read from `offset`; `offset` or less if nothing may. Unavailable after corruption."""
        size, generation = self._growing.file.size, self._generation
        if generation is None:
            return size
        if generation.corrupt:
            raise Unavailable(
                f"wrong bytes were received for {self._growing.file.path}", hint="download the whole file again"
            )
        return size if generation.verified else min(generation.available(offset), size - HOLD_BACK)

    async def ready(self, offset: int) -> int:
        """Wait for the byte at `offset`; the end of what may be read from there. Raises what the download fails with,
        and Unavailable when the opened bytes are no longer those of the file."""
        while True:
            version = self._growing.version.value
            end = self.available(offset)
            if end > offset or end == self._growing.file.size:
                return end
            self._outcome.check()
            if self._outcome.published:
                await asyncio.to_thread(self._check_same_file)
                self._generation = None
                continue
            await self._growing.next_change(version, self._generation, offset, every=POLL)

    def _check_same_file(self) -> None:
        """Another process may have published the blob: then the opened file is not the published one."""
        blob = self._growing.repo.blob(self._growing.file)
        if blob is None or not os.path.samestat(blob.stat(), os.fstat(self.file.fileno())):
            raise Unavailable(
                f"another process published {self._growing.file.path}", hint="request the rest of the file again"
            )


class GrowingFiles:
    """The growing files of one process, by repository and etag. A file is forgotten with its last reader and writer."""

    def __init__(self) -> None:
        self._files: WeakValueDictionary[BlobKey, GrowingFile] = WeakValueDictionary()

    def file(self, repo: RepoCache, file: ManifestFile) -> GrowingFile:
        """The one growing file of this content."""
        key = repo.key(file)
        growing = self._files.get(key)
        if growing is None:
            growing = self._files[key] = GrowingFile(repo, file)
        return growing


class GrowingFileSink:
    """A partial file that reports to its readers; satisfies origin's RangeSink."""

    def __init__(self, partial_file: PartialFile, writer: GrowingFileWriter) -> None:
        self.size = partial_file.size
        self._partial = partial_file
        self._writer = writer

    def missing(self) -> list[tuple[int, int]]:
        """As `PartialFile`, like all that follow."""
        return self._partial.missing()

    async def write(self, offset: int, data: bytes) -> None:
        await self._partial.write(offset, data)
        self._writer.progressed()

    async def digest(self) -> str:
        return await self._partial.digest()

    async def read(self, offset: int, length: int) -> bytes:
        return await self._partial.read(offset, length)

    async def forget(self, offset: int, length: int) -> None:
        await self._writer.corrupt()
        await self._partial.forget(offset, length)

    async def discard(self) -> None:
        await self._writer.corrupt()
        await self._partial.discard()


def _open(path: Path) -> BinaryIO | None:
    with translated(), suppress(FileNotFoundError):
        return path.open("rb", buffering=0)
    return None
