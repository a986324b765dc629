"""`p2pmodel cache move`: put a repository of the cache on another disk."""

import asyncio
import json
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import Style, reporting
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput
from p2pmodel.node.reporter import Reporter, reported
from p2pmodel.store.cache import HubCache
from p2pmodel.store.space.relocation import Relocation, planned_relocation, relocate


@click.command()
@click.argument("repo", shell_complete=repositories)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--back", is_flag=True, help="Move it back into the cache.")
@click.option("--dry-run", is_flag=True, help="Print what would be moved, and exit.")
@options.common
@options.progress
def move(
    *,
    settings: Settings,
    style: Style,
    repo: str,
    folder: Path | None,
    back: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Move a repository, with all its snapshots, to FOLDER on another disk; a link stays in the cache.

    All programs go on finding it at the same paths. Every blob is hashed at its new place before the old one goes. The
    budget does not count what lies elsewhere, and 'cache prune' leaves it alone; 'p2pmodel rm' removes it. Processes of
    p2pmodel that serve or download the repository must end first.
    """
    if (folder is None) == (not back):
        raise InvalidInput("name a folder, or give --back", hint="see 'p2pmodel cache move --help'")
    held = HubCache(settings.cache_dir, settings.state_dir).known(RepoId(repo))
    planned = planned_relocation(held, folder)
    size, stays = planned.size, planned.source == planned.target
    if not dry_run:
        interrupted = "interrupted; nothing was moved, or all of it: the same command again shows which"
        with reporting(style, quiet=quiet) as reporter:
            run_interruptible(_moved(planned, size, reporter), interrupted=interrupted)
    text = f"{planned.repo.repo}, {human(size)}, to {planned.target}"
    if as_json:
        plain = {"repo": str(planned.repo.repo), "size": size, "from": str(planned.source), "to": str(planned.target)}
        echo(json.dumps(plain | {"moved": not (dry_run or stays)}))
    elif not quiet:
        there = f"{planned.repo.repo} is in {planned.target.parent} already"
        echo(there if stays else f"would move {text}" if dry_run else f"moved {text}", err=True)


async def _moved(planned: Relocation, size: int, reporter: Reporter) -> None:
    # Every byte is copied, and hashed.
    with reported(reporter, "checking", 2 * size) as count:
        await asyncio.to_thread(relocate, planned, on_bytes=count)
