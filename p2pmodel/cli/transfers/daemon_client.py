"""A client of the daemon that the settings name, and the selection of its transfers by repository."""

import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from p2pmodel.cli.secret_files import read_token
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.client import Client, Server
from p2pmodel.config.sections.daemon import ClientSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.progress.views import TransferView, matching, of_repository
from p2pmodel.errors import InvalidInput, NotFound
from p2pmodel.tls import client_context

Command = Callable[[Client, str], Awaitable[TransferView]]


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """A client of the daemon at `client.server`, else of the one at `daemon.socket`.

    Calls raise NoDaemon if no daemon listens there. Raises InvalidInput if neither is configured.
    """
    where = server(settings.client) or settings.daemon.socket
    if where is None:
        raise InvalidInput("no daemon socket is configured", hint="see docs/reference/settings.md")
    async with Client(where) as client:
        yield client


def server(named: ClientSettings) -> Server | None:
    """The daemon's TCP address, None if none is configured. Raises InvalidInput for unusable token or TLS files."""
    if named.server is None:
        return None
    token = read_token(named.token_file) if named.token_file else None
    if not named.server.startswith("https:"):
        return Server(named.server, token)
    return Server(named.server, token, client_context(named.ca_file, named.certificate, named.key))


def chosen(views: Iterable[TransferView], repo: str) -> tuple[TransferView, ...]:
    """The transfers of REPO, or of REPO@REV. Raises NotFound if there are none."""
    ref = Reference.parse(repo)
    of_repo = of_repository(views, ref.repo)
    found = matching(of_repo, ref) if "@" in repo else of_repo
    if not found:
        raise NotFound(f"the daemon has no transfer of {repo}", hint="list its transfers with 'p2pmodel status'")
    return tuple(found)


def command_each(settings: Settings, repo: str, command: Command, done: str, *, as_json: bool, quiet: bool) -> None:
    """Call `command` for each transfer of REPO or REPO@REV, and print `done` with its name."""

    async def work() -> list[TransferView]:
        async with connected(settings) as client:
            return [await command(client, view.id) for view in chosen(await client.transfers(), repo)]

    views = run_interruptible(work(), interrupted="interrupted")
    if as_json:
        echo(json.dumps({"transfers": [dataclasses.asdict(view) for view in views]}))
    elif not quiet:
        for view in views:
            echo(f"{done} {view.repo}@{view.commit}", err=True)
