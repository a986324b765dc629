"""Load a model while its snapshot is still being fetched. Imports torch and transformers only when a load begins.

Invariants, to re-check when editing:
1. No model is returned before the fetch has reported the snapshot complete, which it does after the hub's hash of every
   file was right, and before it is certain that no byte that was read has changed since. Otherwise the model is loaded
   again, from the complete snapshot.
2. Whatever ends the load ends all threads that wait for bytes: a failed fetch, a failed load, a cancellation.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.tasks import companions, in_the_end, in_thread
from p2pmodel.errors import IntegrityError, Interrupted
from p2pmodel.loading import optional_imports
from p2pmodel.loading.arrival.arrival_watch import ArrivalWatch
from p2pmodel.loading.arrival.tensor_order import (
    NeedOrder,
    OrderRequests,
    Request,
    TensorRange,
    begin_with,
    file_after_file,
    files_together,
    no_requests,
)
from p2pmodel.loading.formats import INDEX, SINGLE, is_settings
from p2pmodel.loading.options import LoadOptions, LoadPhase, LoadProgress, OnLoadProgress
from p2pmodel.store.arriving_file import ArrivingFile
from p2pmodel.store.cache import RepoCache

if TYPE_CHECKING:
    from p2pmodel.loading.model import LoadedModel

LOOK_EVERY = 0.05
"""Seconds between two looks at what has arrived."""
SEEN_WITHIN = 5.0
"""Seconds after the end of a fetch in which its last records are read, also on a busy machine."""
SHOW_EVERY = 0.2
"""Seconds between two reports of the progress."""
MIRROR_FILES_AT_ONCE = 4
"""Files that a copy from mirrors pulls at a time."""


@dataclass(frozen=True, slots=True)
class ArrivingSnapshot:
    """A snapshot that is being fetched into `repo`: those `files` of `manifest`.

    `request` asks the download for places before others.
    `first`: which of the shards to begin with if as much has arrived of several; it should differ on nodes that start
    together.
    """

    repo: RepoCache
    manifest: Manifest
    files: Sequence[ManifestFile]
    request: Request = no_requests
    first: int = 0


def _ignore(_progress: LoadProgress) -> None:
    """Show nothing."""


async def load_while_arriving(
    snapshot: ArrivingSnapshot,
    complete: Awaitable[object],
    options: LoadOptions | None = None,
    on_progress: OnLoadProgress = _ignore,
) -> "LoadedModel":
    """The model of `snapshot`, as soon as possible after `complete`, which returns once the fetch has verified all
    files and raises its error.

    Raises the errors of the fetch, and those of `model.load`; then the fetch is left to the caller. A cancellation ends
    the load at once, and the wait for `complete`.
    """
    fetched = asyncio.ensure_future(complete)
    try:
        chosen = options or LoadOptions()
        chosen.check()
        await asyncio.to_thread(optional_imports.require)
        return await _Overlap(snapshot, chosen, on_progress).run(fetched)
    finally:
        fetched.cancel()


class _Overlap:
    """One load; all of it runs in the event loop, except what is passed to a thread."""

    def __init__(self, snapshot: ArrivingSnapshot, options: LoadOptions, on_progress: OnLoadProgress) -> None:
        self._snapshot = snapshot
        self._options = options
        self._on_progress = on_progress
        self._by_path = {file.path: file for file in snapshot.files}
        files = snapshot.files
        settings = [file for file in files if is_settings(file.path, file.size)]
        weights = [file for file in files if file.path.endswith(".safetensors")]
        self._settings = [file.path for file in settings]
        self._weights = [file.path for file in weights]
        self._need = NeedOrder(snapshot.manifest.total_size, settings, weights)
        self._requests: OrderRequests | None = None
        self._built = False
        self._shown: LoadProgress | None = None

    async def run(self, fetched: "asyncio.Future[object]") -> "LoadedModel":
        if INDEX in self._by_path or SINGLE in self._by_path:
            loaded = await self._overlapped(fetched)
            if loaded is not None:
                return loaded
        await fetched
        return await self._after_the_fetch()

    async def _overlapped(self, fetched: "asyncio.Future[object]") -> "LoadedModel | None":
        """The proved model; None if it must be loaded again."""
        repo = self._snapshot.repo
        wanted = [*self._settings, *self._weights]
        watch = ArrivalWatch({path: ArrivingFile(repo, self._by_path[path]) for path in wanted})
        try:
            async with companions() as start:
                start(self._follow(watch))
                self._requests = OrderRequests(self._need, watch.gaps, self._snapshot.request)
                start(self._requests.run())
                loaded = await self._raced(watch, fetched)
                if loaded is None:
                    return None
                self._built = True
                await fetched
            completed = time.monotonic()
            with suppress(IntegrityError):
                await asyncio.to_thread(watch.look)
            if not watch.is_proved:
                return None
            self._show("loaded", watch)
            return self._named(loaded, time.monotonic() - completed)
        finally:
            await in_the_end(asyncio.to_thread(watch.close))

    async def _raced(self, watch: ArrivalWatch, fetched: "asyncio.Future[object]") -> "LoadedModel | None":
        """The built model, unless the fetch fails first. None if damaged bytes that are not proved are the reason."""
        building = asyncio.ensure_future(asyncio.to_thread(self._build, watch))
        try:
            both: list[asyncio.Future[Any]] = [building, fetched]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if fetched.done() and not building.done():
                fetched.result()
                await self._see_all(watch)
                await asyncio.wait({building})
            return building.result()
        except IntegrityError:
            if fetched.done():
                fetched.result()
            if watch.is_proved:
                raise
            return None  # bytes that no hash has confirmed: what is wrong with them is being downloaded again
        finally:
            watch.fail(Interrupted("the load was stopped"))
            await in_the_end(_ended(building))

    async def _see_all(self, watch: ArrivalWatch) -> None:
        """After the end of the fetch: what it has verified is seen within a bound. Else, as where the records belong to
        another user, the complete snapshot is loaded."""
        ends = time.monotonic() + SEEN_WITHIN
        while not watch.is_verified and watch.failure is None:
            if time.monotonic() > ends:
                watch.fail(IntegrityError("the records of the download cannot be read", hint="load its snapshot"))
            await asyncio.sleep(LOOK_EVERY)

    def _build(self, watch: ArrivalWatch) -> "LoadedModel":
        from p2pmodel.loading.arrival.arriving_model import ArrivingModel  # noqa: PLC0415 - imports torch

        manifest = self._snapshot.manifest
        return ArrivingModel(
            watch,
            self._snapshot.repo.snapshot(manifest.commit),
            self._settings,
            here=frozenset(self._by_path),
            listed=frozenset(file.path for file in manifest.files),
            options=self._options,
            ordering=partial(self._ordered, watch),
        ).build()

    def _ordered(self, watch: ArrivalWatch, places: list[TensorRange]) -> list[TensorRange]:
        """Called by the building thread, once."""
        shards = sorted({place.shard for place in places})
        if self._requests is not None and self._requests.in_swarm:
            arrived = [watch.file(shard).arrived_bytes for shard in shards]
            order = file_after_file(places, shards, begin_with(arrived, self._snapshot.first))
        else:
            sizes = {shard: self._by_path[shard].size for shard in shards}
            order = files_together(places, sizes, MIRROR_FILES_AT_ONCE)
        self._need.begin(order)
        return order

    async def _follow(self, watch: ArrivalWatch) -> None:
        """Look at the disk, and show the progress, until cancelled."""
        shown = 0.0
        while True:
            with suppress(IntegrityError):
                await asyncio.to_thread(watch.look)
            if (now := time.monotonic()) >= shown + SHOW_EVERY:
                shown = now
                self._show("verifying" if self._built else "loading" if self._need.has_begun else "waiting", watch)
            await asyncio.sleep(LOOK_EVERY)

    def _show(self, phase: LoadPhase, watch: ArrivalWatch) -> None:
        progress = LoadProgress(phase, *watch.progress)
        if progress != self._shown:
            self._shown = progress
            self._on_progress(progress)

    async def _after_the_fetch(self) -> "LoadedModel":
        """The model of the complete snapshot, loaded from its beginning."""
        from p2pmodel.loading.model import load  # noqa: PLC0415 - imports torch

        began = time.monotonic()
        path = self._snapshot.repo.snapshot(self._snapshot.manifest.commit)
        self._on_progress(LoadProgress("loading"))
        loading = partial(load, path, options=self._options)
        loaded = await in_thread(loading, lambda _loaded: None)
        self._on_progress(LoadProgress("loaded", loaded.weight_bytes, loaded.weight_bytes, loaded.weight_bytes))
        return self._named(loaded, time.monotonic() - began)

    def _named(self, loaded: "LoadedModel", after_download: float) -> "LoadedModel":
        manifest = self._snapshot.manifest
        return replace(loaded, after_download_seconds=after_download, repo=manifest.repo, commit=manifest.commit)


async def _ended(building: "asyncio.Future[LoadedModel]") -> None:
    await asyncio.wait({building})
    if not building.cancelled():
        building.exception()
