"""`p2pmodel rm`: remove a snapshot from the cache, through the daemon if one runs on it."""

import asyncio
import dataclasses
import json
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.output import echo
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.client import Client, NoDaemon
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.progress.views import RemovedSnapshot
from p2pmodel.core.sizes import human
from p2pmodel.errors import NotFound
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.lock import one_at_a_time
from p2pmodel.store.cache import HubCache
from p2pmodel.store.commit_lookup import find_commit
from p2pmodel.store.removal import remove_snapshot


@click.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@options.socket
@options.common
def rm(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Remove a snapshot from the cache: its refs, its links, and the blobs that no other snapshot uses.

    A daemon that runs on this cache stops seeding it first.
    """
    ref = Reference.parse(repo)
    removed = run_interruptible(_remove(settings, ref), interrupted="interrupted; run the same command again to finish")
    if as_json:
        echo(json.dumps(dataclasses.asdict(removed)))
    elif not quiet:
        echo(f"removed {removed.repo}@{removed.commit}, {human(removed.freed)}", err=True)


async def _remove(settings: Settings, ref: Reference) -> RemovedSnapshot:
    cache = HubCache(settings.cache_dir, settings.state_dir)
    try:
        if settings.daemon.socket is not None:
            async with Client(settings.daemon.socket) as client:
                if Path((await client.node()).cache_dir) == cache.root:
                    return await client.remove(str(ref))
    except NoDaemon:
        pass
    return await _remove_here(cache, ref)


async def _remove_here(cache: HubCache, ref: Reference) -> RemovedSnapshot:
    repo = await asyncio.to_thread(cache.known, ref.repo)
    commit = await asyncio.to_thread(find_commit, repo, ref.revision)
    if commit is None:
        raise NotFound(f"{ref} is not in this cache", hint="list its snapshots with 'p2pmodel ls'")
    async with one_at_a_time(repo, commit, Reporter()):
        freed = await asyncio.to_thread(remove_snapshot, repo, commit)
    return RemovedSnapshot(str(repo.repo), commit, freed)
