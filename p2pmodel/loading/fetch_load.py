"""A fetch in this process, and the load of its model while it runs."""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from p2pmodel.core.tasks import together
from p2pmodel.errors import P2PModelError
from p2pmodel.loading.options import LoadOptions
from p2pmodel.loading.overlap import ArrivingSnapshot, load_while_arriving
from p2pmodel.loading.progress import LoadProgress, OnLoadProgress
from p2pmodel.node.fetch.request import FetchResult

if TYPE_CHECKING:
    from p2pmodel.loading.model import LoadedModel
    from p2pmodel.node.fetch.fetch import Fetch
    from p2pmodel.node.snapshot.resolved import ResolvedTarget


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
        snapshot = ArrivingSnapshot(
            fetch.repo(target.manifest),
            target.manifest,
            fetch.selected(target.manifest),
            request=partial(fetch.request_first, target.manifest),
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


def _model_of(outcome: "LoadedModel | P2PModelError | None") -> "LoadedModel":
    assert outcome is not None
    if isinstance(outcome, P2PModelError):
        raise outcome
    return outcome
