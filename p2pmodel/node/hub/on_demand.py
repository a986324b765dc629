"""What clients of a node's hub endpoint ask for: known from whoever knows it, brought here by the node's transfers.

Invariants, to re-check when editing:
1. Once `expect` has returned, the blob of the file is here, or its hub lock is taken (by us, else by somebody who is
   at work on it) until it is or its transfer has failed. A client of this cache waits for the lock, finds the blob,
   and never asks for a byte.
2. Every lock is given back: by the blob, by a failure, a pause or a cancellation of the transfer, by our end.
3. A transfer that the user has paused stays paused, whoever asks.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Self

from p2pmodel.core.manifest import Manifest, ManifestFile, Selection
from p2pmodel.core.names import Reference, RepoId
from p2pmodel.core.single_flight import SingleFlight
from p2pmodel.core.views import TransferView
from p2pmodel.errors import NotFound, NotYet, Unavailable, restored
from p2pmodel.node.fetch.fetch import FetchRequest
from p2pmodel.node.hub.file_groups import group_of
from p2pmodel.node.hub.manifest_source import ManifestSource
from p2pmodel.node.hub.shared_downloads import SharedDownload, SharedDownloads
from p2pmodel.node.hub.upstream import UpstreamRevisions
from p2pmodel.node.node import Node
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.resolve import ResolvedTarget, from_coordinators
from p2pmodel.origin.origin import warm_up
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.growing_file import GrowingFileReader
from p2pmodel.store.state.revisions import revisions_at
from p2pmodel.store.state.transfer_records import transfer_id

METADATA_TTL = 60.0
"""Seconds for which a branch is taken for unchanged: the clients of one job ask for it within moments."""

LOOK_EVERY = 0.2
"""Seconds from look to look: as often as a transfer says how far it is."""
OPEN_WITHIN = 5.0
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
        self._downloads = SharedDownloads(self._download, reporter)

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
        return self.repo(manifest).recently_corrupt(file)

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
    async def reader(self, manifest: Manifest, file: ManifestFile) -> AsyncIterator[GrowingFileReader]:
        """A reader of `file` while it is downloaded. Raises NotYet if nothing can be read soon, or what its transfer
        fails with."""
        shared = self._want(manifest, file)
        try:
            async with asyncio.timeout(OPEN_WITHIN):
                reader = await shared.growing.open()
        except TimeoutError:
            view = self._view(_transfer_of(shared))
            first = "others go first" if view is not None and view.state == "queued" else "nothing of it is here"
            raise NotYet(f"{file.path} of {manifest.repo} is to come: {first}", hint="ask again") from None
        with reader:
            yield reader

    def _want(self, manifest: Manifest, file: ManifestFile) -> SharedDownload:
        repo, locks = self.repo(manifest), self.cache.locks
        shared = self._downloads.get(repo.key(file))
        if shared is not None:
            return shared
        # On the event loop on purpose: it takes less than a hop to a thread, and no cancellation can lose it.
        with translated():
            locked = locks.try_acquire(manifest.repo, file)
        release = partial(locks.release, manifest.repo, file) if locked else _ignore
        return self._downloads.start(manifest, self._node.home.growing.file(repo, file), release)

    async def _download(self, shared: SharedDownload) -> None:
        await self._start(shared)
        await self._published(shared)

    async def _start(self, shared: SharedDownload) -> None:
        """Let the node's transfer of this snapshot bring the file, and those that are wanted with it."""
        what = _transfer_of(shared), group_of(shared.manifest, shared.file)
        view = self._view(_transfer_of(shared))
        if view is not None and view.state == "paused":
            raise Unavailable(f"the transfer of {view.repo} is paused", hint=f"p2pmodel resume {view.repo}")
        if view is None or view.state == "failed" or view.complete:
            self._asked.discard(what)
        if what not in self._asked:
            await self._starting.join(what, lambda: self._ask(shared.manifest, what))

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

    async def _published(self, shared: SharedDownload) -> None:
        """Return once the blob is here. Raises why it will not be."""
        while True:
            version, view = self._node.version.value, self._view(_transfer_of(shared))
            if await asyncio.to_thread(shared.repo.blob, shared.file) is not None:
                return
            if view is None:
                raise Unavailable(f"the transfer of {shared.repo.repo} was cancelled", hint="ask again to start it")
            if view.error is not None:
                raise restored(view.error.code, view.error.message, hint=view.error.hint)
            if view.state == "paused" or view.complete:
                raise NotYet(f"the transfer of {view.repo} has stopped", hint="ask again")
            await self._node.version.beyond(version, timeout=LOOK_EVERY)

    def _view(self, ident: str) -> TransferView | None:
        try:
            return self._node.transfer(ident)
        except NotFound:
            return None

    async def _stop(self) -> None:
        self._getting_ready.cancel()
        await asyncio.gather(self._getting_ready, return_exceptions=True)
        await self._downloads.close()


def _transfer_of(shared: SharedDownload) -> str:
    return transfer_id(shared.manifest.repo, shared.manifest.commit)


def _ignore() -> None:
    """Nothing is to be released."""
