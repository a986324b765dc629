"""`p2pmodel ls`: the snapshots in the cache."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.output import echo
from p2pmodel.cli.table import aligned
from p2pmodel.config.settings import Settings
from p2pmodel.core.progress.views import SnapshotView
from p2pmodel.core.sizes import human
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshot_list import snapshots


@click.command()
@options.socket
@options.common
def ls(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the snapshots in the cache."""
    views = _listed(HubCache(settings.cache_dir))
    if as_json:
        echo(json.dumps({"snapshots": [dataclasses.asdict(view) for view in views]}))
    else:
        header = ("REPO", "COMMIT", "NAMES", "SIZE", "FILES", "STATE")
        echo(aligned(header, [_row(view) for view in views]))


def _listed(cache: HubCache) -> list[SnapshotView]:
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
        for held in snapshots(cache)
    ]


def _row(view: SnapshotView) -> tuple[str, ...]:
    state = f"{view.missing} files missing" if view.missing else "complete"
    state = f"{view.doubted} files doubted" if view.doubted else state
    return view.repo, view.commit[:8], ", ".join(view.revisions) or "-", human(view.size), str(view.files), state
