"""`p2pmodel fetch` through the daemon: start the transfer there and follow it until it is complete."""

import asyncio
import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from p2pmodel.cli import options
from p2pmodel.cli.fetch.report import FetchReport
from p2pmodel.cli.transfers.daemon_client import connected
from p2pmodel.client import Client, DaemonOrder, NoDaemon
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import RepoId, transfer_id
from p2pmodel.core.progress.progress import Progress, Timings
from p2pmodel.core.progress.views import EngineState, TransferView
from p2pmodel.errors import AccessDenied, Conflict, InvalidInput, P2PModelError, restored
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.target import TorrentTarget, read_torrent_file
from p2pmodel.store.cache import HubCache
from p2pmodel.trust.signatures.statement import SignedStatement

NODE_OPTIONS = (
    "--endpoint",
    "--coordinator",
    "--node-name",
    "--swarm-listen",
    "--advertise",
    "--zone",
    "--upload-limit",
    "--download-limit",
    "--seed-time",
    "--confirm",
)
"""Options of the node itself. A running daemon took them at its start, so a fetch through it cannot set them."""


ENGINE_SECONDS = 900.0
"""Seconds after which the daemon no longer counts a model loaded by `fetch` as served: the process may be gone."""


async def usable(settings: Settings, screen: Reporter) -> bool:
    """Whether the daemon of the settings can do all that the command line asks for: the one at `client.server`, else
    one that runs on this cache. Raises InvalidInput for options that a remote daemon does not take."""
    if settings.client.server is not None:
        if given := options.given(*NODE_OPTIONS, "--seed-ratio"):
            raise InvalidInput(
                f"{', '.join(given)} cannot be set with --server", hint="set it where that daemon starts"
            )
        return True
    path = settings.daemon.socket
    if path is None or not path.is_socket():
        return False
    try:
        async with Client(path) as client:
            node = await client.node()
    except (NoDaemon, AccessDenied):
        return False
    if Path(node.cache_dir) != HubCache(settings.cache_dir, settings.state_dir).root:
        screen.note(f"the daemon uses another cache ({node.cache_dir}): fetching without it")
        return False
    given = options.given(*NODE_OPTIONS, "--seed-ratio")
    if given:
        screen.note(f"the running daemon does not take {', '.join(given)}: fetching without it")
        return False
    return True


async def fetch(
    settings: Settings,
    request: FetchRequest,
    screen: Reporter,
    priority: int | None = None,
    on_found: Callable[[RepoId, str], None] = lambda _repo, _commit: None,
) -> FetchReport:
    """Have the daemon download `request`, and show its progress. Raises the error of a transfer that fails.

    `on_found` gets the repository and the commit as soon as the daemon knows them.
    """
    began = time.monotonic()
    screen.progress(Progress("finding"))
    target, signatures = await asyncio.to_thread(_wire, request)
    async with connected(settings) as client:
        view = await client.start(
            target,
            include=request.include,
            exclude=request.exclude,
            priority=priority,
            names=request.names,
            fresh=request.fresh,
            signatures=[each.plain for each in signatures],
            peers=[f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in request.peers],
        )
        found = time.monotonic()
        on_found(RepoId(view.repo), view.commit)
        if view.complete:
            await _list_files(client, view.id, screen)
            return _complete_already(view, found - began)
        view = await _followed(client, view, screen)
    timings = view.timings or Timings(0.0, 0.0, 0.0, 0.0)
    timings = dataclasses.replace(timings, total=time.monotonic() - began, find=found - began)
    return _reported(view, timings, view.completion or view.progress)


def order(settings: Settings) -> DaemonOrder:
    """The order in which this machine's daemon downloads."""
    assert settings.daemon.socket is not None
    return DaemonOrder(settings.daemon.socket)


async def report_engine(settings: Settings, repo: str, commit: str, state: EngineState) -> None:
    """Report to the daemon what has become of the model. Errors are ignored: the daemon may have stopped."""
    assert settings.daemon.socket is not None
    with suppress(P2PModelError):
        async with Client(settings.daemon.socket) as client:
            ident = transfer_id(RepoId(repo), commit)
            await client.engine(ident, state, seconds=None if state == "none" else ENGINE_SECONDS)


def _wire(request: FetchRequest) -> tuple[str | bytes, tuple[SignedStatement, ...]]:
    """The target as the daemon takes it, and the signed statements that come with it. Blocks."""
    target = request.target
    if not isinstance(target, TorrentTarget):
        return str(target), ()
    if target.is_url or target.is_magnet:
        return target.source, ()
    return read_torrent_file(Path(target.source))


async def _followed(client: Client, view: TransferView, screen: Reporter) -> TransferView:
    """The last view of the transfer, once it is complete."""
    noted = 0
    async for state in client.watch(view.id):
        if isinstance(state, str):
            raise Conflict(f"the transfer of {view.repo} was cancelled", hint="the same command starts it again")
        for line in state.notes[-(state.note_count - noted) :] if state.note_count > noted else ():
            screen.note(line)
        noted = state.note_count
        await _list_files(client, state.id, screen)
        screen.progress(_shown(state))
        if state.complete:
            return state
        if state.error:
            raise restored(state.error.code, state.error.message, hint=state.error.hint)
    raise Conflict(f"the transfer of {view.repo} is gone", hint="the same command starts it again")


async def _list_files(client: Client, ident: str, screen: Reporter) -> None:
    if screen.wants_files:
        screen.files(partial(tuple, await client.files(ident)))


def _shown(view: TransferView) -> Progress:
    waiting = {"queued": "other transfers of the daemon", "paused": "'p2pmodel resume': it is paused"}.get(view.state)
    return dataclasses.replace(view.progress, waiting_for=waiting) if waiting else view.progress


def _complete_already(view: TransferView, seconds: float) -> FetchReport:
    total = view.progress.total or view.size
    progress = Progress("done", total, total, from_cache=total)
    return _reported(view, Timings(seconds, seconds, 0.0, 0.0), progress)


def _reported(view: TransferView, timings: Timings, progress: Progress) -> FetchReport:
    return FetchReport(Path(view.path), view.repo, view.commit, view.size, timings, progress, view.vouched_by)
