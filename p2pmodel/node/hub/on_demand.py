"""What clients of a node's hub endpoint ask for: known from whoever knows it, brought here by the node's transfers.

Invariants, to re-check when editing:
1. Once `expect` has returned, the blob of the file is here, or its hub lock is taken (by us, else by somebody who is
   at work on it) until it is or its transfer has failed. A client of this cache waits for the lock, finds the blob,
   and never asks for a byte.
2. Every lock is given back: by the blob, by a failure, a pause or a cancellation of the transfer, by our end.
3. A transfer that the user has paused stays paused, whoever asks.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from p2pmodel.core.manifest import Manifest, ManifestFile, Selection
from p2pmodel.core.names import Reference, RepoId
from p2pmodel.core.single_flight import SingleFlight
from p2pmodel.core.tasks import in_thread
from p2pmodel.core.views import TransferView
from p2pmodel.errors import IntegrityError, NotFound, NotYet, P2PModelError, Unavailable, restored
from p2pmodel.node.fetch.fetch import FetchRequest
from p2pmodel.node.hub.file_groups import group_of
from p2pmodel.node.hub.manifest_source import ManifestSource
from p2pmodel.node.hub.upstream import UpstreamRevisions
from p2pmodel.node.node import Node
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.file_windows import FileWindow, Key
from p2pmodel.node.snapshot.resolve import ResolvedTarget, from_coordinators
from p2pmodel.origin.origin import warm_up
from p2pmodel.store.arrivals import is_tainted, taint
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import translated
from p2pmodel.store.state.revisions import revisions_at
from p2pmodel.store.state.transfer_records import transfer_id

METADATA_TTL = 60.0
"""Seconds for which a branch is taken for unchanged: the clients of one job ask for it within moments."""

LOOK_EVERY = 0.2
"""Seconds from look to look: as often as a transfer says how far it is."""
WINDOW_WITHIN = 5.0
"""Seconds in which something of a file must be to be seen, or its client is asked to come again: with the wait for the
first byte it is less than the 10 s that hub clients wait. What it wants goes before all that is not asked for yet:
peers are asked 3 s ahead, and what they send is written within a second or so."""


class HubContent:
    """`async with` opens and closes it; closing gives back the locks. The node goes on with what it was asked for."""

    def __init__(self, node: Node, reporter: Reporter, *, ttl: float = METADATA_TTL) -> None:
        self.cache = node.home.cache
        self._node = node
        self._reporter = reporter
        self.asking = ManifestSource(node.settings, reporter)
        self._upstream = UpstreamRevisions(self.cache, self.asking, reporter, ttl=ttl)
        self._starting: SingleFlight[tuple[str, Selection], None] = SingleFlight()
        self._asked: set[tuple[str, Selection]] = set()
        """Transfers, and what of them they have been told to bring."""
        self._wanted: dict[Key, _WantedFile] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.asking)
            if self.asking.origin is not None:
                stack.enter_context(self._node.home.origins.watching(self.asking.origin))
            stack.push_async_callback(self._upstream.close)
            stack.push_async_callback(self._starting.close)
            stack.push_async_callback(self._stop)
            self._getting_ready = asyncio.create_task(warm_up())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def manifest(self, ref: Reference) -> Manifest:
        """What `ref` consists of, by the coordinators, else the mirrors, else what is remembered or on its way."""
        try:
            return await self._upstream.manifest(ref)
        except (Unavailable, NotFound):
            known = self._node.found(ref)
            if known is None:
                raise
            return known.manifest

    def check(self, repo: RepoId) -> None:
        """Any repository may be asked for."""

    def repo(self, manifest: Manifest) -> RepoCache:
        """Where the files of `manifest` go."""
        return self.cache.repo(manifest.repo)

    def tainted(self, manifest: Manifest, file: ManifestFile) -> bool:
        """Whether clients may hold wrong bytes of `file`, so that a part of it may not be served. Touches the disk."""
        return is_tainted(self.repo(manifest), file)

    def show(self, manifest: Manifest, file: ManifestFile) -> None:
        """Which snapshots there are is the transfers' affair."""

    def serving(self, manifest: Manifest, file: ManifestFile) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing is removed here to make room."""
        return nullcontext()

    async def expect(self, manifest: Manifest, file: ManifestFile) -> None:
        """Somebody is about to want `file`: have it brought here, unless it is. Invariant 1 holds on return."""
        if await asyncio.to_thread(self.repo(manifest).blob, file) is None:
            self._want(manifest, file)

    @asynccontextmanager
    async def reader(self, manifest: Manifest, file: ManifestFile) -> AsyncIterator["ContentReader"]:
        """A view of `file` while it arrives. Raises NotYet if nothing is to be seen soon, or what its transfer fails
        with."""
        wanted = self._want(manifest, file)
        opened = None
        while opened is None:  # it may get its blob name just before it is opened by the one it had
            path, window = await self._somewhere(wanted)
            opened = await in_thread(partial(_open, path), lambda file: file and file.close())
            if opened is None and window is None:
                raise Unavailable(f"{file.path} of {manifest.repo} was taken away", hint="ask again")
        with opened:
            yield ContentReader(self, wanted, opened, window)

    def window(self, key: Key) -> FileWindow | None:
        """What can be seen of a file that is arriving."""
        return self._node.home.arriving.window(key)

    def _want(self, manifest: Manifest, file: ManifestFile) -> "_WantedFile":
        key = manifest.repo, file.etag
        wanted = self._wanted.get(key)
        if wanted is None:
            # On the event loop on purpose: it takes less than a hop to a thread, and no cancellation can lose it.
            with translated():
                locked = self.cache.locks.try_acquire(manifest.repo, file)
            wanted = self._wanted[key] = _WantedFile(key, self.repo(manifest), manifest, file)
            wanted.task = asyncio.create_task(self._bring(wanted, locked=locked))
        return wanted

    async def _bring(self, wanted: "_WantedFile", *, locked: bool) -> None:
        try:
            await self._start(wanted)
            await self._published(wanted)
        except P2PModelError as error:
            wanted.failure = error
            if isinstance(error, IntegrityError):
                await asyncio.to_thread(taint, wanted.repo, wanted.file)
            if not isinstance(error, NotYet):
                self._reporter.note(f"{wanted.file.path} of {wanted.repo.repo} did not come: {error}")
        finally:
            del self._wanted[wanted.key]
            if locked:
                self.cache.locks.release(wanted.repo.repo, wanted.file)

    async def _start(self, wanted: "_WantedFile") -> None:
        """Let the node's transfer of this snapshot bring the file, and those that are wanted with it."""
        what = wanted.ident, group_of(wanted.manifest, wanted.file)
        view = self._view(wanted.ident)
        if view is not None and view.state == "paused":
            raise Unavailable(f"the transfer of {view.repo} is paused", hint=f"p2pmodel resume {view.repo}")
        if view is None or view.state == "failed" or view.complete:
            self._asked.discard(what)
        if what not in self._asked:
            await self._starting.join(what, lambda: self._ask(wanted.manifest, what))

    async def _ask(self, manifest: Manifest, what: tuple[str, Selection]) -> None:
        selection = what[1]
        ref, node = Reference(manifest.repo, manifest.commit), self._node
        request = FetchRequest(ref, include=selection.include, exclude=selection.exclude)
        found = node.found(ref)
        if found is None or found.metainfo is None:
            # What the snapshot consists of is known: only a torrent is looked for.
            whole = selection == Selection()
            metainfo, lacking = await from_coordinators(ref, node.settings, self._reporter, to_share=whole)
            found = ResolvedTarget(manifest, metainfo, coordinators=lacking)
        names = await asyncio.to_thread(revisions_at, self.repo(manifest), manifest.commit)
        await node.start(request, found=replace(found, refs=tuple(names)))
        self._asked.add(what)

    async def _published(self, wanted: "_WantedFile") -> None:
        """Return once the blob is here. Raises why it will not be."""
        while True:
            version, view = self._node.version.value, self._view(wanted.ident)
            if await asyncio.to_thread(wanted.repo.blob, wanted.file) is not None:
                return
            if view is None:
                raise Unavailable(f"the transfer of {wanted.repo.repo} was cancelled", hint="ask again to start it")
            if view.trouble is not None:
                raise restored(view.trouble.code, view.trouble.message, hint=view.trouble.hint)
            if view.state == "paused" or view.complete:
                raise NotYet(f"the transfer of {view.repo} has stopped", hint="ask again")
            await self._node.version.beyond(version, timeout=LOOK_EVERY)

    async def _somewhere(self, wanted: "_WantedFile") -> tuple[Path, FileWindow | None]:
        """Where the file can be read from, and its window unless it is a blob already."""
        try:
            async with asyncio.timeout(WINDOW_WITHIN):
                while not wanted.ended:
                    window = self.window(wanted.key)
                    if window is not None:
                        if await asyncio.to_thread(window.path.exists):
                            return window.path, window
                        window.waited_for(0)
                    await asyncio.wait([wanted.task], timeout=LOOK_EVERY / 4)
        except TimeoutError:
            view = self._view(wanted.ident)
            first = "others go first" if view is not None and view.state == "queued" else "nothing of it is here"
            raise NotYet(f"{wanted.file.path} of {wanted.repo.repo} is to come: {first}", hint="ask again") from None
        wanted.check()
        return wanted.repo.blob_path(wanted.file), None

    def _view(self, ident: str) -> TransferView | None:
        try:
            return self._node.transfer(ident)
        except NotFound:
            return None

    async def _stop(self) -> None:
        tasks = [self._getting_ready, *(wanted.task for wanted in self._wanted.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class ContentReader:
    """One client's view of a file: `file` is where the bytes are, `ready` says which of them may be read."""

    def __init__(self, on_demand: HubContent, wanted: "_WantedFile", file: BinaryIO, window: FileWindow | None) -> None:
        self.file = file
        self._on_demand = on_demand
        self._wanted = wanted
        self._window = window

    async def ready(self, offset: int) -> int:
        """Wait for the byte at `offset`; the end of what may be read from there. Raises what the transfer fails with,
        and Unavailable when what was shown is no part of the file any more."""
        size = self._wanted.file.size
        while self._window is not None:
            self._check_window(self._window)
            end = self._window.shown(offset, size)
            if end > offset:
                return end
            if self._wanted.ended:
                self._wanted.check()
                await asyncio.to_thread(self._check_same)
                break
            self._window.waited_for(offset)
            await self._window.settled(LOOK_EVERY)
            # A transfer that was told to bring more begins anew, and shows the same file again.
            latest = self._on_demand.window(self._wanted.key)
            if latest is not None and latest.path == self._window.path and not self._window.wrong:
                self._window = latest
        return size

    def _check_window(self, window: FileWindow) -> None:
        if window.wrong:
            raise Unavailable(f"wrong bytes came for {self._wanted.file.path}", hint="ask for all of it again")

    def _check_same(self) -> None:
        """The blob may have come by another way: then what is read here is not what was published."""
        blob = self._wanted.repo.blob(self._wanted.file)
        if blob is None or not os.path.samestat(blob.stat(), os.fstat(self.file.fileno())):
            raise Unavailable(f"{self._wanted.file.path} came by another way", hint="ask again for the rest")


class _WantedFile:
    """A file that somebody asked for and that is not here yet."""

    def __init__(self, key: Key, repo: RepoCache, manifest: Manifest, file: ManifestFile) -> None:
        self.key = key
        self.repo = repo
        self.manifest = manifest
        self.file = file
        self.ident = transfer_id(manifest.repo, manifest.commit)
        self.failure: P2PModelError | None = None
        self.task: asyncio.Task[None]

    @property
    def ended(self) -> bool:
        """Whether it is here, or will not come."""
        return self.task.done()

    def check(self) -> None:
        """It has ended: raise what it failed with."""
        if self.task.cancelled():
            raise Unavailable("the node is stopping", hint="ask again once it has started anew")
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        self.task.result()


def _open(path: Path) -> BinaryIO | None:
    with translated(), suppress(FileNotFoundError):
        return path.open("rb", buffering=0)
    return None
