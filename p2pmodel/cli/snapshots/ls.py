"""`p2pmodel ls`: the snapshots in the cache."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cli.terminal.table import aligned
from p2pmodel.cli.transfers.daemon_client import connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.views import SnapshotView
from p2pmodel.core.sizes import counted, human
from p2pmodel.errors import P2PModelError
from p2pmodel.node.snapshot_views import listed
from p2pmodel.store.cache import HubCache


@click.command()
@options.server
@options.common
def ls(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the snapshots in the cache.

    Of a partial snapshot the download has not ended; 'p2pmodel rm' removes it, too. A repository that this user cannot
    read is named on stderr; the exit code is 0. With --server lists the cache of that daemon.
    """
    unreadable: dict[str, str] = {}

    def pass_over(repo: RepoId, reason: P2PModelError) -> None:
        unreadable[str(repo)] = str(reason)

    if settings.client.server is not None:
        views = list(run_interruptible(_of_daemon(settings), interrupted="interrupted"))
    else:
        views = listed(HubCache(settings.cache_dir, settings.state_dir), pass_over)
    if as_json:
        plain = {"snapshots": [dataclasses.asdict(view) for view in views]}
        echo(json.dumps(plain | ({"unreadable": unreadable} if unreadable else {})))
    else:
        header = ("REPO", "COMMIT", "NAMES", "SIZE", "FILES", "STATE")
        echo(aligned(header, [_row(view) for view in views]))
    for repo, reason in unreadable.items():
        echo(f"not listed: {repo}: {reason}", err=True)


async def _of_daemon(settings: Settings) -> tuple[SnapshotView, ...]:
    async with connected(settings) as client:
        return await client.snapshots()


def _row(view: SnapshotView) -> tuple[str, ...]:
    names = ", ".join(view.revisions) or "-"
    return view.repo, view.commit[:8], names, human(view.size), str(view.files), _state(view)


def _state(view: SnapshotView) -> str:
    if view.doubted:
        return f"{counted(view.doubted, 'file')} doubted"
    if view.partial:
        return f"partial, {human(view.held)} here"
    if view.missing:
        staged = f", {human(view.staged)} of them here" if view.staged else ""
        return f"{counted(view.missing, 'file')} missing{staged}"
    return "complete"
