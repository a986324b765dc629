"""`p2pmodel update`: move what is in the cache to the newest commits of its branches."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.fetch import daemon_fetch
from p2pmodel.cli.fetch.fetch import INTERRUPTED, LEFT_TO_DAEMON, new_fetch, report_of
from p2pmodel.cli.fetch.report import FetchReport, plain_plan, plan_table, plan_words
from p2pmodel.cli.rollout.options import node_name
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import ConsoleReporter, reporting
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.cli.transfers.daemon_client import connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.sizes import counted, human
from p2pmodel.errors import Interrupted, InvalidInput, NotFound, P2PModelError, PartialUpdate
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.snapshot.update_plan import UpdatePlan
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.snapshot_list import FollowedName, followed

UpdateState = Literal["newest", "updated", "planned", "failed"]
PART = "only the files that the cache has of it; --all-files brings all"


@dataclass(frozen=True, slots=True)
class UpdateOutcome:
    """The result for one name. `commit`: where the name points now, or would point."""

    name: FollowedName
    state: UpdateState
    commit: str
    path: Path | None = None
    report: FetchReport | None = None
    plan: UpdatePlan | None = None
    error: P2PModelError | None = None

    def plain(self) -> dict[str, Any]:
        """As one JSON object."""
        plain: dict[str, Any] = {
            "repo": str(self.name.repo),
            "revision": self.name.name,
            "before": self.name.commit,
            "commit": self.commit,
            "state": self.state,
        }
        if self.plan is not None:
            return plain | {key: value for key, value in plain_plan(self.plan).items() if key not in plain}
        if self.error is not None:
            return plain | {"code": self.error.code, "error": str(self.error)}
        progress = self.report.progress if self.report else None
        downloaded = progress.from_peers + progress.from_mirrors if progress else 0
        return plain | {"path": str(self.path), "downloaded": downloaded}

    def words(self) -> str:
        """As one line of text."""
        match self.state:
            case "newest":
                return f"{self.name} is at the newest commit already ({self.commit[:8]})"
            case "updated":
                words = self.report.words() if self.report else ""
                return f"{self.name} moved from {self.name.commit[:8]} to {self.commit[:8]}: {words}"
            case "planned":
                assert self.plan is not None
                return f"{self.name} would move from {self.name.commit[:8]}: {plan_words(self.plan)}"
            case _:
                return f"{self.name} stays at {self.name.commit[:8]}: {self.error}"


@click.command()
@click.argument("target", metavar="[REPO[@REV]]", required=False, shell_complete=repositories)
@click.option("--dry-run", is_flag=True, help="Print what would be downloaded, file by file, and exit.")
@click.option("--all-files", is_flag=True, help="Fetch all files, also where the cache has only some of them.")
@click.option("--no-daemon", is_flag=True, help="Download in this process even if a daemon runs.")
@options.server
@node_name
@options.listen
@options.origin
@options.common
@options.progress
def update(settings: Settings, target: str | None, **flags: Any) -> None:
    """Move REPO to the newest commit of its branch, or, without REPO, everything in the cache.

    Each name in the cache (a branch, a tag, an alias) is looked up, and its new commit fetched. What the older revision
    has is not downloaded again: whole files, tensors and pieces. The older revision stays; 'p2pmodel cache prune'
    removes it. If this machine's daemon runs, it does the work. Of a revision that is here in part, the same files are
    updated.

    Exit codes: 0 all are at their newest commits, or the plan is printed; 8 only some are, with the reasons of the
    others; the code of the reason if none is, such as 6 where no source answers.
    """
    wanted = Reference.parse(target) if target else None
    if wanted is not None and wanted.pinned and "@" in (target or ""):
        raise InvalidInput(f"{wanted} is a commit, which never changes", hint="name a branch, or the repository alone")
    with reporting(flags["style"], quiet=flags["quiet"]) as screen:
        by_daemon = not flags["no_daemon"] and not flags["dry_run"]
        by_daemon = by_daemon and run_interruptible(daemon_fetch.usable(settings, screen), interrupted="interrupted")
        if flags["dry_run"] and settings.client.server is not None:
            raise InvalidInput("--dry-run looks into the cache of this machine", hint="leave --server out")
        names = run_interruptible(_names(settings, wanted, "@" in (target or ""), screen), interrupted="interrupted")
        if flags["all_files"]:
            names = [replace(name, include=()) for name in names]
        run = UpdateRun(settings, screen, by_daemon=bool(by_daemon), dry_run=flags["dry_run"])
        outcomes = run_interruptible(run.all(names), interrupted=LEFT_TO_DAEMON if by_daemon else INTERRUPTED)
        with screen.aside():
            _show(outcomes, screen, as_json=flags["as_json"], quiet=flags["quiet"])
    _raise_failures(outcomes)


class UpdateRun:
    """Updates names one after another."""

    def __init__(self, settings: Settings, screen: ConsoleReporter, *, by_daemon: bool, dry_run: bool) -> None:
        self._settings = settings
        self._screen = screen
        self._by_daemon = by_daemon
        self._dry_run = dry_run

    async def all(self, names: Sequence[FollowedName]) -> list[UpdateOutcome]:
        """The outcome of each name; failures are among them."""
        outcomes = []
        for name in names:
            try:
                outcomes.append(await self._one(name))
            except Interrupted:
                raise
            except P2PModelError as error:
                outcomes.append(UpdateOutcome(name, "failed", name.commit, error=error))
        return outcomes

    async def _one(self, name: FollowedName) -> UpdateOutcome:
        request = FetchRequest(Reference(name.repo, name.name), include=name.include, fresh=True)
        if name.include and not self._dry_run:
            self._screen.note(f"{name}: {counted(name.files, 'file')}, {PART}")
        if self._by_daemon:
            report = await daemon_fetch.fetch(self._settings, request, self._screen)
            state: UpdateState = "newest" if report.commit == name.commit else "updated"
            return UpdateOutcome(name, state, report.commit, report.path, report)
        return await self._here(name, request)

    async def _here(self, name: FollowedName, request: FetchRequest) -> UpdateOutcome:
        fetching = new_fetch(request, self._settings, self._screen)
        found = await fetching.find()
        repo, commit = fetching.repo(found.manifest), found.manifest.commit
        lacking = await asyncio.to_thread(repo.lacking, fetching.selected(found.manifest))
        if commit == name.commit and not lacking:
            return UpdateOutcome(name, "newest", commit, repo.snapshot(commit))
        if self._dry_run:
            return UpdateOutcome(name, "planned", commit, plan=await fetching.plan(found))
        results: list[FetchResult] = []
        await fetching.run(results.append, found)
        report = report_of(results[-1])
        return UpdateOutcome(name, "updated", commit, report.path, report)


async def _names(
    settings: Settings, wanted: Reference | None, one: bool, screen: ConsoleReporter
) -> list[FollowedName]:
    """The names to look up; `one`: the revision of `wanted` alone. Raises NotFound."""
    if settings.client.server is not None:
        found = await _of_daemon(settings, screen)
    else:
        cache = HubCache(settings.cache_dir, settings.state_dir)

        def pass_over(repo: RepoId, reason: P2PModelError) -> None:
            screen.note(f"{repo} is passed over: {reason}")

        found = await asyncio.to_thread(lambda: list(followed(cache, pass_over)))
    if wanted is None:
        return found
    of_repo = [name for name in found if name.repo.is_spelling_of(wanted.repo)]
    chosen = [name for name in of_repo if not one or name.name == wanted.revision]
    if not chosen:
        what = wanted if one else wanted.repo
        raise NotFound(f"no branch of {what} is in this cache", hint=f"'p2pmodel fetch {what}' downloads it")
    return chosen


async def _of_daemon(settings: Settings, screen: ConsoleReporter) -> list[FollowedName]:
    """The names in the cache of another machine. Which files it has of a revision in part is not known here."""
    async with connected(settings) as client:
        views = await client.snapshots()
    found = []
    for view in views:
        for name in () if view.partial else view.revisions:
            if view.missing:
                screen.note(f"{view.repo}@{name} is passed over: that cache has a part of it only")
            else:
                found.append(FollowedName(RepoId(view.repo), name, view.commit, view.files))
    return found


def _show(outcomes: Sequence[UpdateOutcome], screen: ConsoleReporter, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        echo(json.dumps({"updates": [outcome.plain() for outcome in outcomes]}))
        return
    if not outcomes:
        screen.note("no repository in this cache follows a branch")
    for outcome in outcomes:
        if outcome.plan is not None:
            echo(plan_table(outcome.plan), nl=False)
        elif outcome.path is not None:
            result(str(outcome.path))
        if not quiet and (outcome.error is None or len(outcomes) > 1):
            echo(outcome.words(), err=True)
    plans = [outcome.plan for outcome in outcomes if outcome.plan is not None]
    if len(plans) > 1 and not quiet:
        total = sum(plan.download for plan in plans)
        echo(f"{counted(len(plans), 'update')}, {human(total)} to download", err=True)


def _raise_failures(outcomes: Sequence[UpdateOutcome]) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if len(errors) == len(outcomes) and errors:
        raise errors[0]
    if errors:
        raise PartialUpdate(
            f"{len(errors)} of {counted(len(outcomes), 'name')} could not be updated", hint="the reasons are above"
        )
