"""`p2pmodel wait`: return once a snapshot may be used on this machine."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.cli.transfers.daemon_client import connected
from p2pmodel.client import Client, NoDaemon
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.progress.views import SERVING, TransferView, matching
from p2pmodel.core.sizes import duration
from p2pmodel.errors import Unavailable, restored
from p2pmodel.node.snapshot.cache_views import unready
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.snapshot_list import find_commit

WaitGate = Literal["files", "loaded", "answered"]
LOOK_EVERY = 1.0
"""Seconds between two looks."""
SAY_EVERY = 10.0
"""Seconds after which the reason is printed again though it is the same."""
NO_ENGINE = "no inference engine has reported that it serves the model ('p2pmodel ready' reports it)"


@dataclass(frozen=True, slots=True)
class WaitResult:
    """The result of one look at a snapshot. `reason`: why it is not ready; "" if it is."""

    reason: str
    commit: str = ""
    path: Path | None = None


@click.command()
@options.reference
@click.option(
    "--ready",
    "gate",
    type=click.Choice(["files", "loaded", "answered"]),
    default="files",
    show_default=True,
    help="What to wait for: verified files, the model in an engine, or its first answer.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    default="1h",
    show_default=True,
    callback=options.duration,
    help="Longest time to wait, as 30m.",
)
@options.server
@options.common
def wait(settings: Settings, ref: Reference, *, gate: WaitGate, timeout: float, as_json: bool, quiet: bool) -> None:
    """Wait until a snapshot is complete and verified in the cache of this machine, and print its path.

    Asks the daemon, and looks into the cache itself where none runs. Downloads nothing, and does not start anything.
    For prologs, init containers and ExecStartPre. Exit codes: 0 ready; 6 not within --timeout, with the reason; the
    code of the transfer's own failure if the daemon gave it up, such as 7 for a full disk; 2 and 4 for a wrong call.
    """
    began = time.monotonic()
    found = run_interruptible(_ready(settings, ref, gate, timeout, quiet=quiet), interrupted="interrupted")
    seconds = round(time.monotonic() - began, 3)
    if as_json:
        plain = {"repo": str(ref.repo), "commit": found.commit, "path": str(found.path), "ready": gate}
        echo(json.dumps(plain | {"seconds": seconds}))
    else:
        result(str(found.path))


async def _ready(settings: Settings, ref: Reference, gate: WaitGate, timeout: float, *, quiet: bool) -> WaitResult:
    """Return once the snapshot is ready. Raises Unavailable after `timeout` seconds, or the failure of its transfer."""
    began, said, said_at = time.monotonic(), "", 0.0
    while True:
        found = await _look(settings, ref, gate)
        if not found.reason:
            return found
        now = time.monotonic()
        if now - began >= timeout:
            raise Unavailable(
                f"{ref} is not ready after {duration(timeout)}: {found.reason}",
                hint="see 'p2pmodel status', or wait longer with --timeout",
            )
        if not quiet and (found.reason != said or now - said_at >= SAY_EVERY):
            said, said_at = found.reason, now
            echo(f"waiting for {ref}: {found.reason}", err=True)
        await asyncio.sleep(min(LOOK_EVERY, max(0.0, began + timeout - now)))


async def _look(settings: Settings, ref: Reference, gate: WaitGate) -> WaitResult:
    socket = settings.daemon.socket
    if settings.client.server or (socket is not None and socket.is_socket()):
        try:
            async with connected(settings) as client:
                return await _by_daemon(client, settings, ref, gate)
        except NoDaemon:
            if settings.client.server:
                raise
        except Unavailable as error:
            return WaitResult(str(error))
    if gate != "files":
        return WaitResult("no daemon runs: engines report to it that they serve a model")
    return await asyncio.to_thread(_in_cache, settings, ref)


async def _by_daemon(client: Client, settings: Settings, ref: Reference, gate: WaitGate) -> WaitResult:
    root = str(HubCache(settings.cache_dir, settings.state_dir).root)
    if gate == "files" and not settings.client.server and (await client.node()).cache_dir != root:
        return await asyncio.to_thread(_in_cache, settings, ref)  # the daemon is one of another cache
    readiness = await client.ready(str(ref))
    view = next(iter(matching(await client.transfers(), ref)), None)
    if view is not None and view.error is not None and view.state == "failed":
        failure = restored(view.error.code, view.error.message, hint=view.error.hint)
        if not isinstance(failure, Unavailable):  # the daemon tries those again by itself
            raise failure
    if not readiness.ready:
        return WaitResult(readiness.reason)
    if not _passed(view, gate):
        return WaitResult(NO_ENGINE)
    if view is not None:
        return WaitResult("", view.commit, Path(view.path))
    return await asyncio.to_thread(_in_cache, settings, ref)


def _passed(view: TransferView | None, gate: WaitGate) -> bool:
    engine = view.engine if view else "none"
    return gate == "files" or engine == "answered" or (gate == "loaded" and engine in SERVING)


def _in_cache(settings: Settings, ref: Reference) -> WaitResult:
    repo = HubCache(settings.cache_dir, settings.state_dir).known(ref.repo)
    commit = find_commit(repo, ref.revision)
    reason = unready(repo, commit)
    return WaitResult(reason, commit or "", repo.snapshot(commit) if commit else None)
