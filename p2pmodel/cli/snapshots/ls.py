"""`p2pmodel ls`: the snapshots in the cache."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.output import echo
from p2pmodel.cli.table import aligned
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.views import SnapshotView
from p2pmodel.core.sizes import counted, human
from p2pmodel.errors import P2PModelError
from p2pmodel.store.cache import HubCache, OnUnreadable
from p2pmodel.store.snapshot_list import snapshots


@click.command()
@options.socket
@options.common
def ls(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the snapshots in the cache.

    A repository that this user cannot read is named on stderr; the exit code is 0.
    """
    unreadable: dict[str, str] = {}

    def pass_over(repo: RepoId, reason: P2PModelError) -> None:
        unreadable[str(repo)] = str(reason)

    views = _listed(HubCache(settings.cache_dir, settings.state_dir), pass_over)
    if as_json:
        plain = {"snapshots": [dataclasses.asdict(view) for view in views]}
        echo(json.dumps(plain | ({"unreadable": unreadable} if unreadable else {})))
    else:
        header = ("REPO", "COMMIT", "NAMES", "SIZE", "FILES", "STATE")
        echo(aligned(header, [_row(view) for view in views]))
    for repo, reason in unreadable.items():
        echo(f"not listed: {repo}: {reason}", err=True)


def _listed(cache: HubCache, on_unreadable: OnUnreadable) -> list[SnapshotView]:
    return [
        SnapshotView(
            str(held.repo),
            held.commit,
            held.refs,
            str(cache.repo(held.repo).snapshot(held.commit)),
            held.manifest.total_size,
            len(held.manifest.files),
            len(held.missing),
            len(held.doubted),
        )
        for held in snapshots(cache, on_unreadable)
    ]


def _row(view: SnapshotView) -> tuple[str, ...]:
    state = f"{counted(view.missing, 'file')} missing" if view.missing else "complete"
    state = f"{counted(view.doubted, 'file')} doubted" if view.doubted else state
    return view.repo, view.commit[:8], ", ".join(view.revisions) or "-", human(view.size), str(view.files), state
