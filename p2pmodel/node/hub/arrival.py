"""One file on its way from upstream: pulled once, read by any number of clients while it comes.

Invariants, to re-check when editing:
1. Clients check nothing but the size, and the hub's hash can be checked only when all is here. So the last `HOLD_BACK`
   bytes are shown only after the hash of the whole was right: until then nobody completes the file.
2. What was shown may turn out wrong. Then every reader that began before is cut off, and the file is tainted: a
   client that resumes must start anew, or it would put right bytes behind wrong ones.
3. Nothing waits for a client: each reads what is on disk at its own pace, and none holds bytes in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO

from p2pmodel.core.layout import MIB, piece_length_for
from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.tasks import in_thread
from p2pmodel.errors import IntegrityError, P2PModelError, Unavailable
from p2pmodel.origin.origin import Origin
from p2pmodel.store.arrivals import arriving_path, publish_arrived, taint
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import translated
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.files.space import allocated, check_space
from p2pmodel.store.publish import blob_lock
from p2pmodel.store.state.sync_log import SyncLog

HOLD_BACK = MIB
LOCK_PATIENCE = 30.0

MakeRoom = Callable[[], Awaitable[None]]
"""Waits until there is room for the file; raises if there cannot be."""


class PulledFile:
    """`run` pulls and publishes; meanwhile `reader` gives a view of what has come."""

    def __init__(
        self,
        origin: Origin,
        repo: RepoCache,
        manifest: Manifest,
        file: ManifestFile,
        *,
        make_room: MakeRoom,
        log: SyncLog | None,
    ) -> None:
        self.file = file
        self._origin = origin
        self._repo = repo
        self._manifest = manifest
        self._make_room = make_room
        self._log = log
        self._path = arriving_path(repo, file)
        self._partial: PartialFile | None = None
        self._verified = False
        self._failure: P2PModelError | None = None
        self._generation = 0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Pull what is missing, verify, publish. Readers are told of a failure, and it is raised."""
        try:
            await self._run()
        except P2PModelError as error:
            if isinstance(error, IntegrityError):
                await asyncio.to_thread(taint, self._repo, self.file)
            self._failure = error
            raise
        finally:
            # However it ended, cancelled included: no reader may go on waiting.
            if self._failure is None and not self._verified:
                self._failure = Unavailable(f"the pull of {self.file.path} was stopped", hint="ask again: it resumes")
            self._tell()

    async def _run(self) -> None:
        async with blob_lock(self._repo, self.file, patience=LOCK_PATIENCE):
            if await asyncio.to_thread(self._repo.blob, self.file) is None:
                await self._make_room()
                await asyncio.to_thread(self._check_space)
                sources = await self._pull()
                if self._log is not None:
                    await asyncio.to_thread(self._log.record, self._manifest, self.file, self._path, sources)
                await asyncio.to_thread(publish_arrived, self._repo, self._manifest, self.file)
            self._verified = True

    async def _pull(self) -> list[str]:
        length = piece_length_for(self._manifest.total_size)
        opened = in_thread(lambda: PartialFile.open(self._path, self.file, length), PartialFile.close)
        async with await opened as partial:
            self._partial = partial
            self._tell()
            sources = await self._origin.pull(self._manifest, self.file, _PulledFileSink(self, partial))
            self._verified = True
            self._tell()
        return sources

    def _check_space(self) -> None:
        check_space(self._repo.folder, max(0, self.file.size - allocated(self._path)))

    @asynccontextmanager
    async def reader(self) -> AsyncIterator["PulledFileReader"]:
        """A view for one client, as soon as there is something to look at. Raises what `run` failed with."""
        while self._partial is None and not self._verified:
            await self._wait()
        generation = self._generation
        with await in_thread(self._open, BinaryIO.close) as file:
            yield PulledFileReader(self, file, generation)

    def _open(self) -> BinaryIO:
        """The file as it arrives; published in the meantime, it is the same under another name."""
        try:
            return self._path.open("rb", buffering=0)
        except FileNotFoundError:
            with translated():
                return self._repo.blob_path(self.file).open("rb", buffering=0)

    async def shown(self, offset: int, generation: int) -> int:
        """Where the bytes from `offset` end that a reader of `generation` may have, once there are any."""
        while True:
            if generation != self._generation:
                raise Unavailable(f"upstream sent wrong bytes for {self.file.path}", hint="ask for all of it again")
            if self._verified:
                return self.file.size
            come = self._partial.available(offset) if self._partial else 0
            end = min(come, self.file.size - HOLD_BACK)
            if end > offset:
                return end
            await self._wait()

    async def discarded(self) -> None:
        """What has come is wrong: whoever saw some of it must not see the rest."""
        await asyncio.to_thread(taint, self._repo, self.file)  # before a client that is cut off can come back
        self._generation += 1
        self._tell()

    def progressed(self) -> None:
        """More has come."""
        self._tell()

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class PulledFileReader:
    """One client's view of an arrival: `file` is where the bytes are, `ready` says which of them may be read."""

    def __init__(self, arrival: PulledFile, file: BinaryIO, generation: int) -> None:
        self.file = file
        self._arrival = arrival
        self._generation = generation

    async def ready(self, offset: int) -> int:
        """Wait for the byte at `offset`; the end of what may be read from there. Raises what the pull fails with."""
        return await self._arrival.shown(offset, self._generation)


class _PulledFileSink:
    """The partial file, its readers told of what happens to it; satisfies origin's RangeSink."""

    def __init__(self, arrival: PulledFile, partial: PartialFile) -> None:
        self._arrival = arrival
        self._partial = partial
        self.size = partial.size

    def missing(self) -> list[tuple[int, int]]:
        return self._partial.missing()

    async def write(self, offset: int, data: bytes) -> None:
        await self._partial.write(offset, data)
        self._arrival.progressed()

    async def digest(self) -> str:
        return await self._partial.digest()

    async def read(self, offset: int, length: int) -> bytes:
        return await self._partial.read(offset, length)

    async def forget(self, offset: int, length: int) -> None:
        await self._arrival.discarded()
        await self._partial.forget(offset, length)

    async def discard(self) -> None:
        await self._arrival.discarded()
        await self._partial.discard()
