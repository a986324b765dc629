"""Files that clients read while they grow: a transfer or a pull-through mirror writes, any number of readers follow.

Invariants, to re-check when editing:
1. Clients check only the size, and the hub's hash covers the whole file. So the last `HOLD_BACK` bytes are readable
   only after the hash was right, or once the file has its blob name: before that no client can complete the file.
2. Bytes that were readable may prove wrong. The content is first marked corrupt, then every reader that began before
   ends: a client that resumed would append right bytes to wrong ones, so it must be sent the whole file.
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

from p2pmodel.core.layout import MIB
from p2pmodel.core.manifest import ManifestFile
from p2pmodel.core.tasks import in_thread
from p2pmodel.errors import Unavailable
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import BlobKey, RepoCache
from p2pmodel.store.files.partial_file import PartialFile

HOLD_BACK = MIB

POLL = 0.2
"""Seconds between two looks at content that is written on request: its writer reports no progress, and a request may
have to be repeated. A transfer reports its own progress as often."""
OPEN_POLL = POLL / 4
"""Seconds between two looks for such content on disk."""


@dataclass(eq=False, slots=True)
class _Content:
    """One generation of the bytes at `path`: readers of the same generation share its fate."""

    path: Path
    available: Callable[[int], int]
    request: Callable[[int], None] | None
    attached: bool = True
    """Whether a writer is at work on it."""
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
        self._content: _Content | None = None
        self._outcome = _Outcome()
        self._changed = asyncio.Event()

    @contextmanager
    def written(
        self, path: Path, available: Callable[[int], int], request: Callable[[int], None] | None = None
    ) -> Iterator["GrowingFileWriter"]:
        """Offer the bytes at `path` to readers while the context lasts.

        `available(offset)`: the end of the bytes present from `offset` without a gap; `offset` or less if there are
        none. `request(offset)` is called again and again while a reader waits for that byte; without it the writer
        must report its progress. Readers follow a later writer to the same path.
        """
        content = self._content
        if content is not None and content.path == path and not (content.attached or content.verified):
            content.available, content.request, content.attached = available, request, True
        else:
            content = self._content = _Content(path, available, request)
        writer = GrowingFileWriter(self, content)
        self.wake()
        try:
            yield writer
        finally:
            writer.detach()

    def published(self) -> None:
        """The blob is in the cache: readers go on if it is the file they opened."""
        self._end(_Outcome(published=True))

    def fail(self, error: Exception) -> None:
        """No more bytes come: readers get those that are available, then `error`."""
        self._end(_Outcome(error=error))

    async def open(self) -> "GrowingFileReader":
        """A reader, once there is a file to open. Raises what `fail` is called with, and Unavailable if the published
        blob was removed."""
        outcome = self._outcome
        while True:
            outcome.check()
            changed, content = self._changed, self._content
            if content is not None and not content.attached:
                content = None
            path = self.repo.blob_path(self.file) if outcome.published else content.path if content else None
            if path is not None:
                opened = await in_thread(partial(_open, path), lambda file: file and file.close())
                if opened is not None:
                    return GrowingFileReader(self, opened, None if outcome.published else content, outcome)
                if outcome.published:
                    raise Unavailable(f"{self.file.path} of {self.repo.repo} was removed", hint="try again")
            await self.next_change(changed, content, 0, every=OPEN_POLL)

    async def next_change(self, changed: asyncio.Event, content: _Content | None, offset: int, *, every: float) -> None:
        """Wait until `changed`, which was current when the caller looked; on request no longer than `every` seconds."""
        request = content.request if content is not None and content.attached else None
        if request is not None:
            request(offset)
        with suppress(TimeoutError):
            async with asyncio.timeout(every if request else None):
                await changed.wait()

    def replace_content(self, old: _Content, new: _Content) -> None:
        """Let readers that begin from now on see `new` instead of `old`."""
        if self._content is old:
            self._content = new

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change."""
        return self._changed

    def wake(self) -> None:
        """Let every waiting reader look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _end(self, outcome: _Outcome) -> None:
        self._outcome.published, self._outcome.error = outcome.published, outcome.error
        self._outcome = _Outcome()
        self.wake()


class GrowingFileWriter:
    """What a writer reports about the bytes it writes."""

    def __init__(self, growing: GrowingFile, content: _Content) -> None:
        self._growing = growing
        self._content = content

    def progressed(self) -> None:
        """More bytes are available."""
        self._growing.wake()

    def verified(self) -> None:
        """The hash of the whole file is right: all of it is readable."""
        self._content.verified = True
        self._growing.wake()

    @property
    def is_verified(self) -> bool:
        """Whether `verified` was called for the present bytes."""
        return self._content.verified

    async def corrupt(self) -> None:
        """Some of the bytes are wrong: end the readers that began before. Later ones read what is left."""
        await asyncio.to_thread(self._growing.repo.mark_corrupt, self._growing.file)  # invariant 2
        old = self._content
        old.corrupt = True
        self._content = replace(old, verified=False, corrupt=False)
        self._growing.replace_content(old, self._content)
        self._growing.wake()

    def detach(self) -> None:
        """The writer is done: the bytes stay available to their readers, and no new reader opens them."""
        self._content.attached = False


class GrowingFileReader:
    """One client's view: `file` has the bytes, `ready` returns which of them may be read. A context closes it."""

    def __init__(self, growing: GrowingFile, file: BinaryIO, content: _Content | None, outcome: _Outcome) -> None:
        self.file = file
        self._growing = growing
        self._content = content
        """None: all of the file may be read."""
        self._outcome = outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.file.close()

    def available(self, offset: int) -> int:
        """The end of what may be read from `offset`; `offset` or less if nothing may. Unavailable after corruption."""
        size, content = self._growing.file.size, self._content
        if content is None:
            return size
        if content.corrupt:
            raise Unavailable(
                f"wrong bytes were received for {self._growing.file.path}", hint="download the whole file again"
            )
        return size if content.verified else min(content.available(offset), size - HOLD_BACK)

    async def ready(self, offset: int) -> int:
        """Wait for the byte at `offset`; the end of what may be read from there. Raises what the download fails with,
        and Unavailable when the opened bytes are no longer those of the file."""
        while True:
            changed = self._growing.changed
            end = self.available(offset)
            if end > offset or end == self._growing.file.size:
                return end
            self._outcome.check()
            if self._outcome.published:
                await asyncio.to_thread(self._check_same_file)
                self._content = None
                continue
            await self._growing.next_change(changed, self._content, offset, every=POLL)

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
