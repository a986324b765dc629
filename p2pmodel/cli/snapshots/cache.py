"""`p2pmodel cache`: the space of snapshots, the pins, the removal of unused ones, and moves to another disk."""

import asyncio
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import Style, reporting
from p2pmodel.cli.terminal.output import aligned, echo, visible
from p2pmodel.client import Client, NoDaemon
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.progress.views import TransferView
from p2pmodel.core.sizes import counted, duration, human, parse_duration, parse_size
from p2pmodel.errors import Conflict, Interrupted, InvalidInput, NotFound
from p2pmodel.node.reporter import Reporter, reported
from p2pmodel.node.snapshot_readers import SnapshotReaders
from p2pmodel.node.space_keeper import SpaceKeeper, SpaceSurveyor, space_rules
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.snapshots.snapshot_list import find_commit
from p2pmodel.store.space.plan import HeldSnapshot, PlannedRemoval, SpacePlan, SpaceRules, own_bytes, planned
from p2pmodel.store.space.relocation import Relocation, planned_relocation, relocate
from p2pmodel.store.space.usage import SnapshotUsage, measured
from p2pmodel.store.space.usage import pin as set_pin
from p2pmodel.store.space.usage import unpin as remove_pin


@click.command()
@click.argument("repo", shell_complete=repositories)
@click.argument("folder", type=PathName(), required=False)
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

    All programs still find it at the same paths. Every blob is hashed at its new place before the old one goes. The
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


@click.group()
def cache() -> None:
    """Show the space that snapshots take, pin them, move them, and remove those that were not used for long."""


cache.add_command(move)


@cache.command()
@options.common
def ls(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the snapshots with their bytes on this disk, the one used longest ago first.

    OWN is what the removal of that snapshot alone frees: snapshots of one repository share files. The last line counts
    everything in the cache, also unfinished downloads and records, but not what 'cache move' has put elsewhere.
    """
    usage = measured(HubCache(settings.cache_dir, settings.state_dir))
    held = [HeldSnapshot(each.repo, each.commit, each.contents, each.used) for each in usage.snapshots]
    rows = sorted(zip(usage.snapshots, held, strict=True), key=lambda pair: pair[0].used)
    if as_json:
        plain = [_plain(each, own_bytes(snapshot, held)) for each, snapshot in rows]
        echo(json.dumps({"snapshots": plain, "total": usage.total, "budget": settings.store.budget}))
        return
    now = time.time()
    table = [_row(each, own_bytes(snapshot, held), now) for each, snapshot in rows]
    echo(aligned(("REPO", "COMMIT", "NAMES", "ON DISK", "OWN", "LAST USE", "PINS"), table))
    budget = f" of {human(settings.store.budget)}" if settings.store.budget is not None else ""
    echo(f"{human(usage.total)}{budget} on disk", err=True)
    for moved_to in sorted({each.moved_to for each in usage.snapshots} - {""}):
        echo(f"not counted: {moved_to}", err=True)


def _plain(usage: SnapshotUsage, own: int) -> dict[str, object]:
    return {
        "repo": str(usage.repo),
        "commit": usage.commit,
        "revisions": usage.refs,
        "on_disk": sum(usage.contents.values()),
        "own": own,
        "used": usage.used,
        "pins": usage.pins,
        "moved_to": usage.moved_to,
    }


def _row(usage: SnapshotUsage, own: int, now: float) -> tuple[str, ...]:
    names, sizes = ", ".join(usage.refs) or "-", (human(sum(usage.contents.values())), human(own))
    age = f"{duration(max(0.0, now - usage.used))} ago"
    return str(usage.repo), usage.commit[:8], names, *sizes, age, ", ".join(usage.pins) or "-"


@cache.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@options.common
def pin(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Pin a revision: neither the daemon nor 'cache prune' removes the commit that it points at.

    A pinned branch or tag follows the name when it moves. 'p2pmodel rm' removes pinned snapshots, too.
    """
    held, revision = _meant(settings, Reference.parse(repo))
    set_pin(held, revision)
    _said({"repo": str(held.repo), "pinned": revision}, f"pinned {held.repo}@{revision}", as_json=as_json, quiet=quiet)


@cache.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@options.common
def unpin(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Remove a pin."""
    ref = Reference.parse(repo)
    held = HubCache(settings.cache_dir, settings.state_dir).known(ref.repo)
    revision = ref.revision
    if not remove_pin(held, revision):
        commit = find_commit(held, revision)
        if commit is None or not remove_pin(held, commit):
            raise NotFound(f"{ref} is not pinned", hint="'p2pmodel cache ls' lists the pins")
        revision = commit
    text = f"unpinned {held.repo}@{revision}"
    _said({"repo": str(held.repo), "unpinned": revision}, text, as_json=as_json, quiet=quiet)


def _meant(settings: Settings, ref: Reference) -> tuple[RepoCache, str]:
    """The repository and the name to pin: a name stays one, an abbreviated commit becomes the whole."""
    held = HubCache(settings.cache_dir, settings.state_dir).known(ref.repo)
    if ref.revision in held.refs():
        return held, ref.revision
    commit = find_commit(held, ref.revision)
    if commit is None:
        raise NotFound(f"{ref} is not in this cache", hint="list its snapshots with 'p2pmodel ls'")
    return held, commit


def _said(plain: dict[str, object], text: str, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        echo(json.dumps(plain))
    elif not quiet:
        echo(text, err=True)


@cache.command()
@click.option("--budget", metavar="SIZE", help="Most bytes that the cache may take, instead of store.budget.")
@click.option("--unused", metavar="TIME", help="Remove what was not used for so long, as in 30d.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed and why the others stay, and exit.")
@options.common
def prune(
    *, settings: Settings, budget: str | None, unused: str | None, yes: bool, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Remove snapshots until the cache is within its budget, those used longest ago first.

    Pinned snapshots stay, and those that are downloaded, read or served, or of which no other copy is known: in the
    swarm if there are coordinators, else on a mirror. Asks first; without a terminal it needs --yes. A daemon does this
    by itself, so beside one only --dry-run works.
    """
    rules = _rules(settings, budget, unused)
    held, plan = run_interruptible(_planned(settings, rules, dry_run=dry_run), interrupted="interrupted")
    if dry_run:
        _print_plan(held, plan, as_json=as_json, quiet=quiet)
        return
    gone: tuple[PlannedRemoval, ...] = ()
    if plan.leaving:
        if not yes:
            _confirm(plan)
        keeper = SpaceKeeper(HubCache(settings.cache_dir, settings.state_dir), settings, log=lambda _line: None)
        gone = run_interruptible(keeper.prune(rules), interrupted="interrupted; run the same command again to finish")
    removed = [{"repo": str(e.snapshot.repo), "commit": e.snapshot.commit, "freed": e.freed} for e in gone]
    text = f"removed {counted(len(gone), 'snapshot')}, {human(sum(each.freed for each in gone))}"
    _said({"removed": removed}, text, as_json=as_json, quiet=quiet)
    if plan.over and not quiet:
        echo(f"{human(plan.over)} above the budget: the other snapshots must stay; --dry-run says why", err=True)


def _rules(settings: Settings, budget: str | None, unused: str | None) -> SpaceRules:
    rules = space_rules(settings)
    if budget is not None:
        most = parse_size(budget)
        rules = dataclasses.replace(rules, budget=most, low=int(most * settings.store.low_mark))
    if unused is not None:
        rules = dataclasses.replace(rules, unused=parse_duration(unused))
    if unused is not None and not rules.unused:
        raise InvalidInput("--unused must be above 0", hint="give a time such as 30d")
    if rules.budget is None and not rules.unused:
        raise InvalidInput("there is no budget", hint="give --budget or --unused, or set store.budget")
    return rules


async def _planned(
    settings: Settings, rules: SpaceRules, *, dry_run: bool
) -> tuple[tuple[HeldSnapshot, ...], SpacePlan]:
    cache = HubCache(settings.cache_dir, settings.state_dir)
    pid, transfers = await _daemon_on(cache, settings)
    if pid is not None and not dry_run:
        raise Conflict(
            "a daemon runs on this cache: it removes snapshots by itself",
            hint="set store.budget and reload it, or remove single snapshots with 'p2pmodel rm'",
        )
    own = (os.getpid(),) if pid is None else (os.getpid(), pid)
    survey = await SpaceSurveyor(cache, settings, own).survey(transfers, SnapshotReaders())
    return survey.held, planned(survey.held, survey.total, rules, time.time())


async def _daemon_on(cache: HubCache, settings: Settings) -> tuple[int | None, tuple[TransferView, ...]]:
    """The daemon that runs on `cache`, if any, and its transfers."""
    try:
        if settings.daemon.socket is not None:
            async with Client(settings.daemon.socket) as client:
                node = await client.node()
                if await asyncio.to_thread(Path(node.cache_dir).resolve) == cache.root.resolve():
                    return node.pid, await client.transfers()
    except NoDaemon:
        pass
    return None, ()


def _confirm(plan: SpacePlan) -> None:
    if not sys.stdin.isatty():
        raise InvalidInput(
            "prune asks first, and there is no terminal", hint="give --yes; --dry-run shows what would go"
        )
    echo("\n".join(map(_line, plan.leaving)), err=True)
    size = human(sum(each.freed for each in plan.leaving))
    if not click.confirm(visible(f"remove {counted(len(plan.leaving), 'snapshot')} ({size})?"), err=True):
        raise Interrupted("nothing was removed")


def _line(each: PlannedRemoval) -> str:
    return f"remove {each.snapshot.repo}@{each.snapshot.commit}, {human(each.freed)}"


def _print_plan(held: tuple[HeldSnapshot, ...], plan: SpacePlan, *, as_json: bool, quiet: bool) -> None:
    leaving = {(each.snapshot.repo, each.snapshot.commit) for each in plan.leaving}
    staying = [each for each in held if (each.repo, each.commit) not in leaving]
    if as_json:
        removed = [{"repo": str(e.snapshot.repo), "commit": e.snapshot.commit, "freed": e.freed} for e in plan.leaving]
        kept = [{"repo": str(each.repo), "commit": each.commit, "reason": each.kept} for each in staying]
        echo(json.dumps({"removed": removed, "kept": kept, "before": plan.before, "after": plan.after}))
    elif not quiet:
        lines = [f"would {_line(each)}" for each in plan.leaving]
        lines += [f"keeps {each.repo}@{each.commit}: {each.kept or 'within the rules'}" for each in staying]
        echo("\n".join([*lines, f"{human(plan.before)} now, {human(plan.after)} after"]), err=True)
