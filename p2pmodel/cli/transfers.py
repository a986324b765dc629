"""The node's daemon, as verbs ask it about transfers; and pausing and resuming them."""

import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import click

from p2pmodel.cli import options
from p2pmodel.cli.run import run
from p2pmodel.cli.token_files import read_private_token
from p2pmodel.client import Client, Server
from p2pmodel.config.settings import ClientSettings, Settings
from p2pmodel.core.names import Reference
from p2pmodel.core.views import TransferView, named
from p2pmodel.errors import InvalidInput, NotFound
from p2pmodel.tls import client_context

Command = Callable[[Client, str], Awaitable[TransferView]]


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """The daemon that the settings name, else that of this machine. What is asked of one that does not run raises
    NoDaemon."""
    where = server(settings.client) or settings.daemon.socket
    if where is None:
        raise InvalidInput("no socket of a daemon is configured", hint="see docs/reference/settings.md")
    async with Client(where) as client:
        yield client


def server(named: ClientSettings) -> Server | None:
    """The daemon that is asked over TCP, if one is named. Raises InvalidInput for files that cannot be used."""
    if named.server is None:
        return None
    token = read_private_token(named.token_file) if named.token_file else None
    if not named.server.startswith("https:"):
        return Server(named.server, token)
    return Server(named.server, token, client_context(named.ca_file, named.certificate, named.key))


def chosen(views: Iterable[TransferView], repo: str) -> tuple[TransferView, ...]:
    """Those of REPO, or of REPO@REV. Raises NotFound if there are none."""
    ref = Reference.parse(repo)
    of_repo = [view for view in views if view.repo == str(ref.repo)]
    found = named(of_repo, ref) if "@" in repo else of_repo
    if not found:
        raise NotFound(f"the daemon has no transfer of {repo}", hint="'p2pmodel status' lists what it has")
    return tuple(found)


@click.command()
@click.argument("repo", metavar="REPO[@REV]")
@options.server
@options.common
def pause(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Stop the daemon's transfers of REPO, their serving too, until they are resumed."""
    command_each(settings, repo, Client.pause, "paused", as_json=as_json, quiet=quiet)


@click.command()
@click.argument("repo", metavar="REPO[@REV]")
@options.server
@options.common
def resume(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Go on with the daemon's transfers of REPO that are paused or have failed."""
    command_each(settings, repo, Client.resume, "resumed", as_json=as_json, quiet=quiet)


@click.command()
@click.argument("repo", metavar="REPO[@REV]")
@options.server
@options.common
def cancel(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Let the daemon forget its transfers of REPO. What is here of them stays, and a new fetch goes on from there."""
    command_each(settings, repo, Client.cancel, "cancelled", as_json=as_json, quiet=quiet)


def command_each(settings: Settings, repo: str, command: Command, done: str, *, as_json: bool, quiet: bool) -> None:
    """Have the daemon do `command` to its transfers of REPO, or of REPO@REV, and say what was `done`."""

    async def work() -> list[TransferView]:
        async with connected(settings) as client:
            return [await command(client, view.id) for view in chosen(await client.transfers(), repo)]

    views = run(work(), interrupted="interrupted")
    if as_json:
        click.echo(json.dumps({"transfers": [dataclasses.asdict(view) for view in views]}))
    elif not quiet:
        for view in views:
            click.echo(f"{done} {view.repo}@{view.commit}", err=True)
