"""`p2pmodel ls` and `rm`: the snapshots in the cache, through the daemon where one runs."""

import asyncio
import dataclasses
import json
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.run import run
from p2pmodel.cli.table import aligned
from p2pmodel.client import Client, NoDaemon
from p2pmodel.config.settings import Settings
from p2pmodel.core.names import Reference
from p2pmodel.core.sizes import human
from p2pmodel.core.views import RemovedSnapshot, SnapshotView
from p2pmodel.errors import NotFound
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.lock import one_at_a_time
from p2pmodel.store.cache import HubCache
from p2pmodel.store.listing import snapshots
from p2pmodel.store.removal import remove_snapshot


@click.command()
@options.socket
@options.common
def ls(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the snapshots in the cache."""
    views = _listed(HubCache(settings.cache_dir))
    if as_json:
        click.echo(json.dumps({"snapshots": [dataclasses.asdict(view) for view in views]}))
    else:
        header = ("REPO", "COMMIT", "NAMES", "SIZE", "FILES", "STATE")
        click.echo(aligned(header, [_row(view) for view in views]))


@click.command()
@click.argument("repo", metavar="REPO[@REV]")
@options.socket
@options.common
def rm(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Remove a snapshot from the cache: its names, its links, and the files that no other snapshot needs.

    A daemon that keeps it stops serving it first.
    """
    ref = Reference.parse(repo)
    removed = run(_remove(settings, ref), interrupted="interrupted; the same command goes on")
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(removed)))
    elif not quiet:
        click.echo(f"removed {removed.repo}@{removed.commit}, {human(removed.freed)}", err=True)


async def _remove(settings: Settings, ref: Reference) -> RemovedSnapshot:
    cache = HubCache(settings.cache_dir)
    try:
        if settings.daemon.socket is not None:
            async with Client(settings.daemon.socket) as client:
                if Path((await client.node()).cache_dir) == cache.root:
                    return await client.remove(str(ref))
    except NoDaemon:
        pass
    return await _remove_here(cache, ref)


async def _remove_here(cache: HubCache, ref: Reference) -> RemovedSnapshot:
    repo = cache.repo(ref.repo)
    commit = repo.resolve(ref.revision)
    if commit is None:
        raise NotFound(f"{ref} is not in this cache", hint="'p2pmodel ls' lists what is")
    async with one_at_a_time(repo, commit, Reporter()):
        freed = await asyncio.to_thread(remove_snapshot, repo, commit)
    return RemovedSnapshot(str(ref.repo), commit, freed)


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
        )
        for held in snapshots(cache)
    ]


def _row(view: SnapshotView) -> tuple[str, ...]:
    state = f"{view.missing} files missing" if view.missing else "complete"
    return view.repo, view.commit[:8], ", ".join(view.revisions) or "-", human(view.size), str(view.files), state
