"""`p2pmodel import`: import a plain directory into the cache as a snapshot."""

import json
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import Style, reporting
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.node.snapshot.local import import_snapshot
from p2pmodel.store.cache import HubCache
from p2pmodel.trust.contents.policy import ContentPolicy

INTERRUPTED = "interrupted; nothing was published: run the same command again"


@click.command(name="import")
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@options.reference
@click.option(
    "--private", is_flag=True, help="Mark the snapshot as private: peers find its torrents through their trackers only."
)
@options.common
@options.progress
def import_dir(
    settings: Settings, source: Path, ref: Reference, *, private: bool, style: Style, as_json: bool, quiet: bool
) -> None:
    """Copy the files of DIR into the cache as a snapshot of REPO, and print the snapshot's path.

    REV is the ref to set (default: main). The commit id depends on the content only, so every machine that imports
    the same files gets the same snapshot and the same torrent; a REV of 40 hex digits is used as the commit id.
    .git and .cache/huggingface are left out. DIR may be a snapshot folder of another hub cache.
    """
    cache = HubCache(settings.cache_dir, settings.state_dir, policy=ContentPolicy(settings.contents.rules))
    with reporting(style, quiet=quiet) as reporter:
        manifest = run_interruptible(
            import_snapshot(cache, source, ref, reporter, private=private), interrupted=INTERRUPTED
        )
    path = cache.repo(ref.repo).snapshot(manifest.commit)
    if not as_json:
        result(str(path))
        return
    plain = {"repo": str(manifest.repo), "commit": manifest.commit, "path": str(path)}
    echo(json.dumps(plain | {"files": len(manifest.files), "size": manifest.total_size}))
