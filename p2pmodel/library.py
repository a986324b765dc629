"""`p2pmodel.load`: the model of a repository on a device, for scripts."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import load_settings
from p2pmodel.loading import optional_imports
from p2pmodel.loading.options import LoadOptions
from p2pmodel.loading.progress import LoadProgress, OnLoadProgress

T = TypeVar("T")


def load(
    repo: str,
    revision: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | None = None,
    attn: str | None = None,
    cache_dir: str | Path | None = None,
    on_progress: Callable[[LoadProgress], object] | None = None,
) -> tuple[Any, Any]:
    """The model of `repo` on a device, and its processor (of a text-only model, its tokenizer).

    What the cache lacks is fetched as by `p2pmodel fetch`, with the settings of the settings file and the environment;
    the model is loaded while the files arrive, and returned once every file is verified. `revision`: a branch, tag or
    commit. `device`: `cpu`, `cuda`, `cuda:N`, or "auto" for the GPU if there is one. `dtype` "auto": as the model says;
    else `bfloat16`, `float16` or `float32`. `device_map`: spread the layers over several devices, as transformers does.
    `attn`: the attention implementation. `on_progress` is called in another thread.

    Raises an error of `p2pmodel.errors`: what failed, and what to do. Ctrl-C ends it; what was verified is kept.
    """
    options = LoadOptions(None if device == "auto" else device, dtype, device_map, attn)
    options.check()
    optional_imports.check_installed()
    settings = load_settings(flags={"cache_dir": None if cache_dir is None else str(cache_dir)})
    loaded = _run(_loaded(repo, revision, options, settings, on_progress or _ignore))
    return loaded.model, loaded.processor


def _ignore(_progress: LoadProgress) -> None:
    """Show nothing."""


async def _loaded(
    repo: str, revision: str | None, options: LoadOptions, settings: Settings, on_progress: OnLoadProgress
) -> Any:
    from p2pmodel.loading.fetch_load import fetch_and_load  # noqa: PLC0415 - only a load needs the engine
    from p2pmodel.loading.formats import OTHER_WEIGHTS  # noqa: PLC0415
    from p2pmodel.node.fetch.fetch import Fetch  # noqa: PLC0415
    from p2pmodel.node.fetch.request import FetchRequest  # noqa: PLC0415
    from p2pmodel.node.local_address import with_peer_address  # noqa: PLC0415
    from p2pmodel.node.reporter import Reporter  # noqa: PLC0415
    from p2pmodel.node.snapshot.target import parse_target  # noqa: PLC0415

    request = FetchRequest(parse_target(repo, revision), exclude=OTHER_WEIGHTS)
    fetch = Fetch(request, with_peer_address(settings), Reporter())
    return (await fetch_and_load(fetch, options, on_progress=on_progress))()


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop and a thread of its own: the caller may have a running loop. An exception here, such as
    KeyboardInterrupt, cancels it and waits for its end."""
    loop = asyncio.new_event_loop()
    task: asyncio.Task[T] = loop.create_task(work)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_ended(task))

    thread = threading.Thread(target=run, name="p2pmodel.load")
    thread.start()
    try:
        thread.join()
    except BaseException:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    return task.result()


async def _ended(task: "asyncio.Task[T]") -> None:
    await asyncio.wait({task})
