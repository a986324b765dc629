"""`p2pmodel import`: a plain directory becomes a snapshot of this cache."""

import json
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.counting import counting
from p2pmodel.domain.names import Reference
from p2pmodel.settings import Settings
from p2pmodel.store.cache import HubCache
from p2pmodel.store.importing import import_directory
from p2pmodel.store.scanning import scan_directory


@click.command(name="import")
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@options.reference
@click.option("--private", is_flag=True, help="Mark the snapshot as not public: its torrents stay on their trackers.")
@options.common
def import_dir(settings: Settings, source: Path, ref: Reference, *, private: bool, as_json: bool, quiet: bool) -> None:
    """Copy the files of DIR into the cache as a snapshot of REPO, and print the snapshot's path.

    REV is the ref to set (default: main). The commit id follows from the content alone, so every machine that
    imports the same files gets the same snapshot and the same torrent; a REV of 40 hex digits is taken as the id.
    Left out are .git and .cache/huggingface. DIR may be a snapshot folder of another hub cache.
    """
    cache = HubCache(settings.cache_dir)
    total = sum(file.size for file in scan_directory(source))
    with counting("hashing", total, settings, quiet=quiet) as count:
        manifest = import_directory(cache, source, ref, private=private, on_bytes=count)
    path = cache.repo(ref.repo).snapshot(manifest.commit)
    if not as_json:
        click.echo(str(path))
        return
    plain = {"repo": str(manifest.repo), "commit": manifest.commit, "path": str(path)}
    click.echo(json.dumps(plain | {"files": len(manifest.files), "size": manifest.total_size}))
