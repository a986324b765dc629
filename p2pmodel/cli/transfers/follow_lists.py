"""`p2pmodel follow ls`: the follow lists of the daemon."""

import dataclasses
import json
import time
from collections.abc import Iterable

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cli.terminal.table import aligned
from p2pmodel.cli.transfers.daemon_client import connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.progress.follow_views import FollowedSnapshot, FollowView
from p2pmodel.core.sizes import duration, human

NOTHING_YET = "not looked up yet"


@click.group()
def follow() -> None:
    """Show the follow lists: what the daemon downloads by itself, in its windows.

    They are [[follow]] tables of the settings file; SIGHUP makes the daemon read them again.
    """


@follow.command()
@options.server
@options.common
def ls(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the follow lists of the daemon: window, commits, progress and the last failure of each."""
    views = run_interruptible(_lists(settings), interrupted="interrupted")
    if as_json:
        echo(json.dumps({"follow": [dataclasses.asdict(view) for view in views]}))
    else:
        echo(follow_table(views, time.time()))


async def _lists(settings: Settings) -> tuple[FollowView, ...]:
    async with connected(settings) as client:
        return await client.follow_lists()


def follow_table(views: Iterable[FollowView], now: float) -> str:
    """The follow lists at the time `now`, a line for each snapshot."""
    header = ("FOLLOWED", "COMMIT", "STATE", "DONE", "OF", "WINDOW", "CHECKED", "NOTE")
    return aligned(header, [line for view in views for line in _lines(view, now)])


def _lines(view: FollowView, now: float) -> list[tuple[str, ...]]:
    checked = "-" if view.checked is None else f"{duration(max(0.0, now - view.checked))} ago"
    around = _window(view, now), checked, view.error
    if not view.snapshots:
        return [(f"{view.repo}@{view.revision}", "-", "-", "-", "-", *around[:2], view.error or NOTHING_YET)]
    return [(*_snapshot(each), *around) for each in view.snapshots]


def _snapshot(each: FollowedSnapshot) -> tuple[str, ...]:
    state = "complete" if each.complete else each.state
    share = "100%" if each.complete else f"{each.done * 100 // each.total}%" if each.total else "-"
    return f"{each.repo}@{each.revision}", each.commit[:8], state, share, human(each.total)


def _window(view: FollowView, now: float) -> str:
    if not view.window:
        return "always"
    changes = "" if view.changes is None else f" for {duration(max(0.0, view.changes - now))}"
    return f"{'open' if view.is_open else 'closed'}{changes}"
