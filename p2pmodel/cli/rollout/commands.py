"""`p2pmodel rollout ls`, `show`, `watch` and `end`: the roll-outs of the configured coordinators."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from p2pmodel.cli import options
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.rollout import tables
from p2pmodel.cli.rollout.options import coordinator
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo, visible
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator, configured
from p2pmodel.coordinator.client.rollouts import RolloutClient, first_with
from p2pmodel.coordinator.rollout.messages import rollout_id, view_plain
from p2pmodel.coordinator.rollout.report import report_json, rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.core.extras import check_extra
from p2pmodel.errors import InvalidInput, NotFound, P2PModelError, Unavailable
from p2pmodel.os_errors import translated

INTERRUPTED = "interrupted; the roll-out goes on"
LINE_EVERY = 1.0
"""Seconds between two lines of a watch that is not on a terminal."""


@click.group()
def rollout() -> None:
    """Show, watch and end the roll-outs of the coordinators: snapshots on their way to the nodes of a cluster."""


@rollout.command()
@coordinator
@options.common
def ls(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the roll-outs, the latest first: the open ones, and those that ended lately."""
    views = run_interruptible(_all(_coordinators(settings)), interrupted=INTERRUPTED)
    reports = [rollout_report(view) for view in views]
    if as_json:
        plain = [_plain(view) for view in views]
        echo(json.dumps({"rollouts": plain}))
    else:
        echo(tables.rollout_table(views, reports))


@rollout.command()
@click.argument("ident", metavar="[ID]", required=False)
@click.option("--all", "every", is_flag=True, help="List all nodes.")
@click.option(
    "--plot",
    type=PathName(),
    metavar="FILE.png|FILE.svg",
    help="File for the curve of readiness (needs p2pmodel[plot]).",
)
@coordinator
@options.common
def show(*, settings: Settings, ident: str | None, every: bool, plot: Path | None, as_json: bool, quiet: bool) -> None:
    """Show a roll-out: its gates, its nodes, what they received, and which are slow, with the reason.

    Without ID the latest open one, else the latest.
    """
    options.check_output(plot)
    if plot:
        _check_plot(plot)
    _, view = run_interruptible(_found(settings, ident), interrupted=INTERRUPTED)
    if as_json:
        echo(json.dumps(_plain(view)))
    else:
        echo(tables.page(view, most=None if every else tables.MOST_NODES))
    if plot:
        _draw(view, plot)
        if not quiet:
            echo(f"curve of readiness: {plot}", err=True)


@rollout.command()
@click.argument("ident", metavar="[ID]", required=False)
@click.option("--until-enough", is_flag=True, help="End once as many nodes as the roll-out asks for are ready.")
@coordinator
@options.common
def watch(*, settings: Settings, ident: str | None, until_enough: bool, as_json: bool, quiet: bool) -> None:
    """Watch a roll-out until it is over: a live table on a terminal, a line for each change elsewhere.

    Without ID the latest open one. With --json each line is the whole roll-out. A coordinator that restarts is awaited.
    The exit code is 0 if enough nodes became ready, else 6.
    """
    view = run_interruptible(
        _watched(settings, ident, _screen(as_json=as_json, quiet=quiet), until_enough=until_enough),
        interrupted=INTERRUPTED,
    )
    report = rollout_report(view)
    if not report.enough:
        gate = report.last_gate
        raise Unavailable(
            f"the roll-out {view.id} is {view.state}: {gate.passed} of {gate.nodes} nodes passed '{gate.gate}'",
            hint=f"see 'p2pmodel rollout show {view.id}'",
        )


@rollout.command()
@click.argument("ident", metavar="ID")
@coordinator
@options.common
def end(*, settings: Settings, ident: str, as_json: bool, quiet: bool) -> None:
    """End a roll-out, and print its report. Downloads go on. Needs the token of its publisher."""

    async def ended() -> RolloutView:
        client, _ = await first_with(_coordinators(settings), rollout_id(ident))
        return await client.end(ident)

    view = run_interruptible(ended(), interrupted=INTERRUPTED)
    if as_json:
        echo(json.dumps(_plain(view)))
    elif not quiet:
        echo(tables.page(view))


class _RolloutLines:
    """Prints a line for each state of the roll-out, at most one in `LINE_EVERY` seconds, and the whole at the end."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._shown = ""
        self._at = -LINE_EVERY

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, view: RolloutView, *, last: bool) -> None:
        now = time.monotonic()
        if not last and now - self._at < LINE_EVERY:
            return
        if self._as_json:
            echo(json.dumps(_plain(view)))
        elif last:
            echo(tables.page(view))
        elif not self._quiet and (line := tables.summary(view, rollout_report(view))) != self._shown:
            self._shown = line
            echo(line, err=True)
        self._at = now

    def lost(self, error: Unavailable) -> None:
        if not self._quiet:
            echo(f"{error}; trying again", err=True)


class _RolloutTable(_RolloutLines):
    """Shows the roll-out on a terminal, which keeps the last state."""

    def __init__(self) -> None:
        super().__init__(as_json=False, quiet=False)
        self._live = Live(console=Console(), refresh_per_second=4, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, view: RolloutView, *, last: bool) -> None:
        rows = max(5, self._live.console.height - 14)
        self._text = visible(tables.page(view, most=None if last else rows))
        self._live.update(Text(self._text, no_wrap=True, overflow="ellipsis"), refresh=last)

    def lost(self, error: Unavailable) -> None:
        self._live.update(Text(visible(f"{self._text}\n\n{error}; trying again")))

    _text = ""


def _screen(*, as_json: bool, quiet: bool) -> _RolloutLines:
    return (
        _RolloutTable()
        if sys.stdout.isatty() and not (as_json or quiet)
        else _RolloutLines(as_json=as_json, quiet=quiet)
    )


async def _watched(settings: Settings, ident: str | None, screen: _RolloutLines, *, until_enough: bool) -> RolloutView:
    client, latest = await _found(settings, ident)
    with screen:
        async for view in client.watch(latest.id, on_lost=screen.lost):
            latest = view
            done = not view.open or (until_enough and view.enough_after is not None)
            screen.show(view, last=done)
            if done:
                break
    return latest


def _coordinators(settings: Settings) -> tuple[Coordinator, ...]:
    coordinators = configured(settings)
    if not coordinators:
        raise InvalidInput("no coordinator is configured", hint="give --coordinator URL, or set coordinators")
    return coordinators


async def _all(coordinators: tuple[Coordinator, ...]) -> list[RolloutView]:
    """The roll-outs of all coordinators. Raises the error of the last one if none answers."""
    answers = await asyncio.gather(*(_whole(RolloutClient(each)) for each in coordinators), return_exceptions=True)
    found = [view for answer in answers if isinstance(answer, list) for view in answer]
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if len(failed) == len(answers) or any(not isinstance(error, P2PModelError) for error in failed):
        raise failed[-1]
    return sorted(found, key=lambda view: -view.began)


async def _whole(client: RolloutClient) -> list[RolloutView]:
    return [await client.read(view.id) for view in await client.all()]


async def _found(settings: Settings, ident: str | None) -> tuple[RolloutClient, RolloutView]:
    coordinators = _coordinators(settings)
    if ident is not None:
        return await first_with(coordinators, rollout_id(ident))
    views = await _all(coordinators)
    if not views:
        raise NotFound("the coordinators have no roll-out", hint="'p2pmodel bootstrap' begins one")
    latest = next((view for view in views if view.open), views[0])
    return await first_with(coordinators, latest.id)


def _plain(view: RolloutView) -> dict[str, Any]:
    return view_plain(view) | {"report": report_json(rollout_report(view))}


def _check_plot(plot: Path) -> None:
    if plot.suffix.lower() not in (".png", ".svg"):
        raise InvalidInput("--plot writes a PNG or an SVG", hint="give a file name that ends in .png or .svg")
    check_extra("plot", "--plot")


def _draw(view: RolloutView, plot: Path) -> None:
    from p2pmodel.cli.plots import draw_rollout  # noqa: PLC0415 - imports matplotlib

    with translated():
        draw_rollout(view, plot)
