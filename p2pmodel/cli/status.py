"""`p2pmodel status`: the transfers of the node's daemon, once or as they go on."""

import dataclasses
import json
from collections.abc import Iterable

import click

from p2pmodel.cli import options
from p2pmodel.cli.columns import aligned, rate
from p2pmodel.cli.running import run
from p2pmodel.cli.transfers import chosen, connected
from p2pmodel.domain.sizes import human
from p2pmodel.domain.transfers import TransferView
from p2pmodel.settings import Settings


@click.command()
@click.argument("repo", metavar="[REPO[@REV]]", required=False)
@click.option("--watch", is_flag=True, help="Go on, with a line for each change, until interrupted.")
@options.server
@options.common
def status(*, settings: Settings, repo: str | None, watch: bool, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Show the daemon's transfers: all of them, or those of REPO."""
    run(
        _watch(settings, repo, as_json=as_json) if watch else _show(settings, repo, as_json=as_json),
        interrupted="interrupted",
    )


async def _show(settings: Settings, repo: str | None, *, as_json: bool) -> None:
    async with connected(settings) as client:
        views = await client.transfers()
    views = chosen(views, repo) if repo else views
    if as_json:
        click.echo(json.dumps({"transfers": [dataclasses.asdict(view) for view in views]}))
    else:
        click.echo(table(views))


async def _watch(settings: Settings, repo: str | None, *, as_json: bool) -> None:
    async with connected(settings) as client:
        wanted = {view.id for view in chosen(await client.transfers(), repo)} if repo else None
        async for state in client.watch():
            ident = state if isinstance(state, str) else state.id
            if wanted is None or ident in wanted:
                click.echo(_json(state) if as_json else _line(state))


def table(views: Iterable[TransferView]) -> str:
    """The transfers, a line each."""
    header = ("REPO", "COMMIT", "STATE", "DONE", "OF", "DOWN", "UP", "PEERS", "NOTE")
    return aligned(header, [_row(view) for view in views])


def _row(view: TransferView) -> tuple[str, ...]:
    progress = view.progress
    share = f"{progress.done * 100 // progress.total}%" if progress.total else "100%" if view.complete else "-"
    rates = rate(progress.download_rate), rate(progress.upload_rate)
    size = human(progress.total or view.size)
    return view.repo, view.commit[:8], view.state, share, size, *rates, str(progress.peers), _note(view)


def _note(view: TransferView) -> str:
    if view.trouble:
        return view.trouble.message
    return f"waiting for {view.progress.waiting_for}" if view.progress.waiting_for else view.progress.phase


def _json(state: TransferView | str) -> str:
    return json.dumps({"gone": state} if isinstance(state, str) else dataclasses.asdict(state))


def _line(state: TransferView | str) -> str:
    return f"{state}  gone" if isinstance(state, str) else "  ".join(_row(state))
