"""A fetch, in this process or in the daemon, and the load of its model while it runs."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from p2pmodel.core.content.manifest import Manifest, Selection
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.content.request_window import FileRange
from p2pmodel.core.tasks import together
from p2pmodel.errors import NotFound, P2PModelError
from p2pmodel.loading.arrival.overlap import LOOK_EVERY, ArrivingSnapshot, load_while_arriving
from p2pmodel.loading.options import LoadOptions, LoadProgress, OnLoadProgress
from p2pmodel.node.fetch.request import FetchResult
from p2pmodel.store.cache import HubCache, RepoCache

if TYPE_CHECKING:
    from p2pmodel.loading.model import LoadedModel
    from p2pmodel.node.fetch.fetch import Fetch
    from p2pmodel.node.snapshot.target import ResolvedTarget

R = TypeVar("R")
RequestOfSnapshot = Callable[[RepoId, str, Sequence[FileRange]], Awaitable[bool]]
"""As `Request`, for the snapshot of a repository and a commit."""


def _ignore(_progress: LoadProgress) -> None:
    """Show nothing."""


async def fetch_and_load(
    fetch: "Fetch",
    options: LoadOptions,
    *,
    on_ready: Callable[[FetchResult], object] = lambda _result: None,
    on_progress: OnLoadProgress = _ignore,
    use: "Callable[[Callable[[], LoadedModel]], object] | None" = None,
) -> "Callable[[], LoadedModel]":
    """Run `fetch` to its end, seeding included, and load the model meanwhile. Returns what returns the model.

    `on_ready` is called as by `Fetch.run`. A model that cannot be loaded ends the fetch at once, with the error of
    `load_while_arriving`. With `use` it does not: what is returned raises it. `use` is called with the same once
    the snapshot is complete, in a thread, while the fetch may still seed. Raises the errors of the fetch, and of `use`.
    """
    found: asyncio.Future[ResolvedTarget] = asyncio.get_running_loop().create_future()
    complete = asyncio.Event()
    outcome: LoadedModel | P2PModelError | None = None

    def note_ready(result: FetchResult) -> None:
        on_ready(result)
        complete.set()

    async def load() -> None:
        nonlocal outcome
        target = await found

        async def request(places: Sequence[FileRange]) -> bool:
            return fetch.request_first(target.manifest, places).in_swarm

        snapshot = ArrivingSnapshot(
            fetch.repo(target.manifest),
            target.manifest,
            fetch.selected(target.manifest),
            request=request,
            first=secrets.randbelow(1 << 16),
        )
        try:
            outcome = await load_while_arriving(snapshot, complete.wait(), options, on_progress)
        except P2PModelError as error:
            if use is None:
                raise
            outcome = error
            await complete.wait()
        if use is not None:
            await asyncio.to_thread(use, partial(_model_of, outcome))

    await together([fetch.run(note_ready, on_found=found.set_result), load()])
    return partial(_model_of, outcome)


async def load_beside(
    fetch: Callable[[Callable[[RepoId, str], None]], Coroutine[Any, Any, R]],
    cache: HubCache,
    selection: Selection,
    options: LoadOptions,
    *,
    request: RequestOfSnapshot,
    on_ready: Callable[[R], object] = lambda _result: None,
    on_progress: OnLoadProgress = _ignore,
) -> "Callable[[], LoadedModel]":
    """Follow `fetch`, by which another process downloads into `cache`, and load the model meanwhile.

    `fetch` calls its argument with the repository and the commit as soon as they are known, and returns when the
    snapshot is complete; `on_ready` gets what it returns. `request` asks that process for places before others. What is
    returned here returns the model, or raises the error of `load_while_arriving`. Raises the errors of the fetch.
    """
    found: asyncio.Future[tuple[RepoId, str]] = asyncio.get_running_loop().create_future()
    complete = asyncio.Event()
    outcome: LoadedModel | P2PModelError | None = None

    async def follow() -> None:
        on_ready(await fetch(lambda repo, commit: found.set_result((repo, commit))))
        complete.set()

    async def load() -> None:
        nonlocal outcome
        name, commit = await found
        repo = await asyncio.to_thread(cache.known, name)
        try:
            manifest = await _listed(repo, commit, complete)
            files = manifest.select(selection.include, selection.exclude)
            first = secrets.randbelow(1 << 16)
            snapshot = ArrivingSnapshot(repo, manifest, files, request=partial(request, name, commit), first=first)
            outcome = await load_while_arriving(snapshot, complete.wait(), options, on_progress)
        except P2PModelError as error:
            outcome = error

    await together([follow(), load()])
    return partial(_model_of, outcome)


async def _listed(repo: RepoCache, commit: str, complete: asyncio.Event) -> Manifest:
    """The manifest, which the other process records before it stages a file. Raises NotFound if it never does."""
    while True:
        is_last = complete.is_set()
        if await asyncio.to_thread(repo.listed_by_a_hub, commit) or is_last:
            manifest = await asyncio.to_thread(repo.manifest, commit)
            if manifest is not None:
                return manifest
        if is_last:
            raise NotFound(f"{repo.repo}@{commit} is not in the cache any more", hint="fetch it again")
        await asyncio.sleep(LOOK_EVERY)


def _model_of(outcome: "LoadedModel | P2PModelError | None") -> "LoadedModel":
    assert outcome is not None
    if isinstance(outcome, P2PModelError):
        raise outcome
    return outcome
