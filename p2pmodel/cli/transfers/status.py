"""`p2pmodel status`, `why` and `follow`: the transfers and the follow lists of the daemon, and what limits a rate."""

import dataclasses
import json
import time
from collections.abc import Iterable

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import aligned, echo, rate
from p2pmodel.cli.transfers.daemon_client import chosen, connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.progress.diagnosis import Diagnosis
from p2pmodel.core.progress.views import FollowedSnapshot, FollowView, ScrubView, TransferView
from p2pmodel.core.sizes import duration, human
from p2pmodel.errors import InvalidInput


@click.command()
@click.argument("repo", metavar="[REPO[@REV]]", required=False, shell_complete=repositories)
@click.option("--watch", is_flag=True, help="Print a line for each change until interrupted.")
@click.option("--peers", is_flag=True, help="Show the connected peers of each transfer, busiest first.")
@options.server
@options.common
def status(
    *,
    settings: Settings,
    repo: str | None,
    watch: bool,
    peers: bool,
    as_json: bool,
    quiet: bool,  # noqa: ARG001
) -> None:
    """Show the daemon's transfers: all of them, or those of REPO."""
    if watch and peers:
        raise InvalidInput("--watch and --peers cannot be combined", hint="leave one of them out")
    run_interruptible(
        _watch(settings, repo, as_json=as_json) if watch else _show(settings, repo, peers=peers, as_json=as_json),
        interrupted="interrupted",
    )


async def _show(settings: Settings, repo: str | None, *, peers: bool, as_json: bool) -> None:
    async with connected(settings) as client:
        views = await client.transfers()
        views = chosen(views, repo) if repo else views
        scrub, lists = await client.scrub(), await client.follow_lists()
        swarms = {view.id: await client.connections(view.id) for view in views} if peers else {}
    if as_json:
        plain = [dataclasses.asdict(view) for view in views]
        connected_peers = {ident: [dataclasses.asdict(each) for each in swarm] for ident, swarm in swarms.items()}
        follow = [dataclasses.asdict(each) for each in lists]
        whole = {"transfers": plain, "scrub": dataclasses.asdict(scrub), "follow": follow}
        echo(json.dumps(whole | ({"peers": connected_peers} if peers else {})))
        return
    echo(table(views))
    if lists and not repo:
        echo(f"\n{follow_table(lists, time.time())}")
    if line := scrub_line(scrub):
        echo(f"\n{line}")
    if peers:
        echo(f"\n{peer_table((view, each) for view in views for each in swarms[view.id])}")


async def _watch(settings: Settings, repo: str | None, *, as_json: bool) -> None:
    async with connected(settings) as client:
        wanted = {view.id for view in chosen(await client.transfers(), repo)} if repo else None
        async for state in client.watch():
            ident = state if isinstance(state, str) else state.id
            if wanted is None or ident in wanted:
                echo(_json(state) if as_json else _line(state))


def table(views: Iterable[TransferView]) -> str:
    """The transfers, a line each."""
    header = ("REPO", "COMMIT", "STATE", "DONE", "OF", "DOWN", "UP", "LEFT", "PEERS", "NOTE")
    return aligned(header, [_row(view) for view in views])


def scrub_line(scrub: ScrubView) -> str:
    """The background check of the cache, while it reads or if it has found something; else ""."""
    found = f"{scrub.found} damaged files found" if scrub.found else ""
    pass_ = f"background check: {human(scrub.done)} of {human(scrub.total)} read" if scrub.running else ""
    return ", ".join(filter(None, (pass_, found)))


def peer_table(connections: Iterable[tuple[TransferView, PeerConnection]]) -> str:
    """The peer connections of transfers, a line each."""
    header = ("REPO", "PEER", "HAS", "DOWN", "UP", "RECEIVED", "SENT", "FLAGS", "ZONE", "CLIENT")
    return aligned(header, [_peer_row(view, each) for view, each in connections])


def _peer_row(view: TransferView, each: PeerConnection) -> tuple[str, ...]:
    rates = rate(each.download_rate), rate(each.upload_rate)
    counts = human(each.downloaded), human(each.uploaded)
    has = f"{int(each.progress * 100)}%"
    client = each.client if each.kind == "peer" else "seeder over HTTP"
    return view.repo, each.address, has, *rates, *counts, each.flags or "-", each.zone or "-", client or "-"


def _row(view: TransferView) -> tuple[str, ...]:
    progress = view.progress
    share = f"{progress.done * 100 // progress.total}%" if progress.total else "100%" if view.complete else "-"
    rates = rate(progress.download_rate), rate(progress.upload_rate)
    size = human(progress.total or view.size)
    left = "-" if view.eta is None else duration(view.eta)
    return view.repo, view.commit[:8], view.state, share, size, *rates, left, str(progress.peers), _note(view)


def _note(view: TransferView) -> str:
    if view.error:
        return view.error.message
    if view.doubted:
        # A transfer that has just been stopped still has the phase of before.
        phase = "checking" if view.progress.phase in ("seeding", "done") else view.progress.phase
        return f"{view.doubted} {'file' if view.doubted == 1 else 'files'} doubted: {phase}"
    state = f"waiting for {view.progress.waiting_for}" if view.progress.waiting_for else view.progress.phase
    state = f"{state} (vouched by {view.vouched_by})" if view.vouched_by else state
    state = "its window is closed" if view.awaits_window and view.state == "queued" else state
    state = f"{state}; engine: {view.engine}" if view.engine != "none" else state
    return f"{state}; {view.progress.unreachable}" if view.progress.unreachable else state


def _json(state: TransferView | str) -> str:
    return json.dumps({"gone": state} if isinstance(state, str) else dataclasses.asdict(state))


def _line(state: TransferView | str) -> str:
    return f"{state}  gone" if isinstance(state, str) else "  ".join(_row(state))


@click.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@options.server
@options.common
def why(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Show what limits the rate of the daemon's transfers of REPO now, with advice; measures for one second."""
    found = run_interruptible(_diagnoses(settings, repo), interrupted="interrupted")
    if as_json:
        echo(json.dumps({"transfers": [dataclasses.asdict(each) for each in found]}))
    else:
        for each in found:
            echo(words(each))


async def _diagnoses(settings: Settings, repo: str) -> list[Diagnosis]:
    async with connected(settings) as client:
        return [await client.why(view.id) for view in chosen(await client.transfers(), repo)]


def words(found: Diagnosis) -> str:
    """A diagnosis as one line."""
    line = f"{found.repo}: {found.bound}: {found.what}"
    if found.rate:
        line += f" ({human(found.rate)}/s"
        line += f" of {human(found.capacity)}/s, {found.ratio:.0%})" if found.capacity and found.ratio else ")"
    return f"{line}; {found.advice}" if found.advice else line


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
