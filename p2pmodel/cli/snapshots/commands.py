"""`p2pmodel ls`, `import` and `rm`: list, import and remove snapshots of the cache.

What a daemon on the cache uses is removed through the daemon.
"""

import asyncio
import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import Style, reporting
from p2pmodel.cli.terminal.output import aligned, echo, result, visible
from p2pmodel.cli.transfers.daemon_client import connected
from p2pmodel.client import Client, NoDaemon
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference, RepoId, abbreviates, one_commit
from p2pmodel.core.progress.views import RemovedSnapshot, SnapshotView
from p2pmodel.core.sizes import counted, human
from p2pmodel.errors import Interrupted, InvalidInput, NotFound, P2PModelError
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.cache_views import listed
from p2pmodel.node.snapshot.local import import_snapshot
from p2pmodel.node.snapshot.lock import one_at_a_time
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.removal import remove_snapshot
from p2pmodel.store.snapshots.snapshot_list import find_commit
from p2pmodel.trust.content_policy import ContentPolicy


@click.command()
@options.server
@options.common
def ls(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the snapshots in the cache.

    A partial snapshot is a download that has not ended; 'p2pmodel rm' removes it, too. A repository that this user
    cannot read is named on stderr; the exit code is 0. With --server lists the cache of that daemon.
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


INTERRUPTED = "interrupted; nothing was published: run the same command again"


@click.command(name="import")
@click.argument("source", metavar="DIR", type=PathName())
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


@click.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and exit.")
@options.server
@options.common
def rm(*, settings: Settings, repo: str, yes: bool, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Remove a snapshot from the cache: its refs, its links, and the blobs that no other snapshot uses.

    Asks first; without a terminal it needs --yes. A daemon that runs on this cache stops seeding it first. With
    --server the snapshot is removed from the cache of that daemon.
    """
    ref = Reference.parse(repo)
    view = run_interruptible(_found(settings, ref), interrupted="interrupted; nothing was removed")
    if dry_run:
        if as_json:
            echo(json.dumps({"repo": view.repo, "commit": view.commit, "size": view.size}))
        elif not quiet:
            echo(f"would remove {_described(view)}", err=True)
        return
    if not yes:
        _confirm(view)
    pinned = Reference(RepoId(view.repo), view.commit)
    removed = run_interruptible(
        _remove(settings, pinned), interrupted="interrupted; run the same command again to finish"
    )
    if as_json:
        echo(json.dumps(dataclasses.asdict(removed)))
    elif not quiet:
        echo(f"removed {removed.repo}@{removed.commit}, {human(removed.freed)}", err=True)


def _confirm(view: SnapshotView) -> None:
    if not sys.stdin.isatty():
        raise InvalidInput("rm asks first, and there is no terminal", hint="give --yes; --dry-run shows what would go")
    if not click.confirm(visible(f"remove {_described(view)}?"), err=True):
        raise Interrupted("nothing was removed")


def _described(view: SnapshotView) -> str:
    names = f" ({', '.join(view.revisions)})" if view.revisions else ""
    return f"{view.repo}@{view.commit}{names}, up to {human(view.size)}: blobs of other snapshots stay"


async def _found(settings: Settings, ref: Reference) -> SnapshotView:
    """The snapshot of the cache that `ref` means. Raises NotFound."""
    if settings.client.server is not None:
        async with connected(settings) as client:
            return _meant(await client.snapshots(), ref)
    cache = HubCache(settings.cache_dir, settings.state_dir)
    repo = await asyncio.to_thread(cache.known, ref.repo)
    commit = await asyncio.to_thread(find_commit, repo, ref.revision)
    views = await asyncio.to_thread(listed, cache, lambda _repo, _reason: None)
    return _meant(views, Reference(repo.repo, commit or ref.revision))


def _meant(views: Iterable[SnapshotView], ref: Reference) -> SnapshotView:
    of_repo = {view.commit: view for view in views if RepoId(view.repo).is_spelling_of(ref.repo)}
    named = {commit for commit, view in of_repo.items() if ref.revision in (commit, *view.revisions)}
    if not named and abbreviates(ref.revision):
        named = {commit for commit in of_repo if commit.startswith(ref.revision)}
    if not named:
        raise NotFound(f"{ref} is not in this cache", hint="list its snapshots with 'p2pmodel ls'")
    return of_repo[one_commit(str(ref), named)]


async def _remove(settings: Settings, ref: Reference) -> RemovedSnapshot:
    if settings.client.server is not None:
        async with connected(settings) as client:
            return await client.remove(str(ref))
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
