"""`p2pmodel.load`: the model of a repository on a device, for scripts."""

import asyncio
import threading
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from p2pmodel.client import Client, DaemonOrder, NoDaemon
from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import load_settings
from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import AccessDenied, Conflict, restored
from p2pmodel.loading import optional_imports
from p2pmodel.loading.options import LoadOptions, LoadProgress, OnLoadProgress
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache

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

    What the cache lacks is fetched as by `p2pmodel fetch`, with the settings of the settings file and the environment,
    by the daemon if one runs on the cache. The model is loaded while the files arrive, and returned once every file is
    verified. `revision`: a branch, tag or commit. `device`: `cpu`, `cuda`, `cuda:N`, or "auto" for the GPU if there is
    one. `dtype` "auto": as the model says; else `bfloat16`, `float16` or `float32`. `device_map`: spread the layers
    over several devices, as transformers does. `attn`: the attention implementation. `on_progress` is called in another
    thread.

    Raises an error of `p2pmodel.errors`: what failed, and what to do. Ctrl-C ends it; what was verified is kept.
    """
    options = LoadOptions(None if device == "auto" else device, dtype, device_map, attn)
    options.check()
    optional_imports.check_installed()
    settings = load_settings(flags={"cache_dir": None if cache_dir is None else str(cache_dir)})
    with translated():
        loaded = _run(_loaded(repo, revision, options, settings, on_progress or _ignore))
    if loaded.beside:
        warnings.warn(loaded.beside, stacklevel=2)
    return loaded.model, loaded.processor


def _ignore(_progress: LoadProgress) -> None:
    """Show nothing."""


async def _loaded(
    repo: str, revision: str | None, options: LoadOptions, settings: Settings, on_progress: OnLoadProgress
) -> Any:
    from p2pmodel.loading.arrival.fetch_load import fetch_and_load, load_beside  # noqa: PLC0415 - only a load needs the engine
    from p2pmodel.loading.formats import OTHER_WEIGHTS  # noqa: PLC0415
    from p2pmodel.node.fetch.fetch import Fetch  # noqa: PLC0415
    from p2pmodel.node.fetch.request import FetchRequest  # noqa: PLC0415
    from p2pmodel.node.local_address import with_peer_address  # noqa: PLC0415
    from p2pmodel.node.reporter import Reporter  # noqa: PLC0415

    target = Reference.parse(repo, revision=revision)
    cache = HubCache(settings.cache_dir, settings.state_dir)
    if (socket := await _daemon_socket(settings, cache)) is not None:
        follow = partial(_transferred, socket, target, OTHER_WEIGHTS)
        chosen, order = Selection(exclude=OTHER_WEIGHTS), DaemonOrder(socket)
        loading = load_beside(follow, cache, chosen, options, request=order.request, on_progress=on_progress)
    else:
        fetch = Fetch(FetchRequest(target, exclude=OTHER_WEIGHTS), with_peer_address(settings), Reporter())
        loading = fetch_and_load(fetch, options, on_progress=on_progress)
    return (await loading)()


async def _daemon_socket(settings: Settings, cache: HubCache) -> Path | None:
    """The socket of the daemon that runs on `cache`; None without one."""
    socket = settings.daemon.socket
    if socket is None or not socket.is_socket():
        return None
    with suppress(NoDaemon, AccessDenied):
        async with Client(socket) as client:
            if Path((await client.node()).cache_dir) == cache.root:
                return socket
    return None


async def _transferred(
    socket: Path, target: Reference, exclude: tuple[str, ...], on_found: Callable[[RepoId, str], None]
) -> None:
    """Return once the daemon has all files of `target`. Raises the error of its transfer."""
    async with Client(socket) as client:
        view = await client.start(str(target), exclude=exclude)
        on_found(RepoId(view.repo), view.commit)
        if view.complete:
            return
        async for state in client.watch(view.id):
            if isinstance(state, str):
                break
            if state.error:
                raise restored(state.error.code, state.error.message, hint=state.error.hint)
            if state.complete:
                return
    raise Conflict(f"the transfer of {target.repo} was cancelled", hint="load it again to start it")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop and a thread of its own: the caller may have a running loop. An exception here, such as
    KeyboardInterrupt, cancels it and waits for its end."""
    loop = asyncio.new_event_loop()
    task: asyncio.Task[T] = loop.create_task(work)

    over = threading.Event()
    """Not the thread's `is_alive`: Python 3.11 takes a thread for ended once a `join` was interrupted."""

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(_ended(task))
        finally:
            over.set()

    threading.Thread(target=run, name="p2pmodel.load").start()
    try:
        over.wait()
    finally:
        if not over.is_set():
            with suppress(RuntimeError):  # the loop has closed since
                loop.call_soon_threadsafe(task.cancel)
            over.wait()
    return task.result()


async def _ended(task: "asyncio.Task[T]") -> None:
    await asyncio.wait({task})
