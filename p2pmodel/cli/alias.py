"""`p2pmodel alias set`, `ls`, `rollback` and `rm`: names at the coordinators that move from commit to commit."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.rollout.options import coordinator
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import aligned, echo
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.catalog_messages import Alias, alias_plain, check_alias
from p2pmodel.coordinator.client.aliases import AliasClient
from p2pmodel.coordinator.client.coordinators import Coordinator, configured
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import InvalidInput, P2PModelError, restored

INTERRUPTED = "interrupted; 'p2pmodel alias ls' shows what each coordinator has"

T = TypeVar("T")
_Found = list[tuple[Coordinator, Alias]]


@click.group()
def alias() -> None:
    """Move and list aliases: names such as stable that the coordinators point at one commit of a repository.

    'p2pmodel fetch REPO@NAME' follows an alias. Aliases are moved with the token of a publisher.
    """


@alias.command(name="set")
@click.argument("named", metavar="REPO@NAME", shell_complete=repositories)
@click.argument("revision", metavar="REVISION")
@coordinator
@options.common
def set_(*, settings: Settings, named: str, revision: str, as_json: bool, quiet: bool) -> None:
    """Point an alias at the commit of REVISION: a commit, a revision name or an alias in the coordinators' catalogs.

    The coordinators must have a torrent of that commit. With several coordinators each is changed in turn.
    """
    ref = _alias(named)
    target = Reference(ref.repo, revision).revision
    _change(settings, lambda client: client.set(ref, target), as_json=as_json, quiet=quiet)


@alias.command()
@click.argument("named", metavar="REPO@NAME", shell_complete=repositories)
@coordinator
@options.common
def rollback(*, settings: Settings, named: str, as_json: bool, quiet: bool) -> None:
    """Point an alias at the commit that it had before its last move; again, at the one before that."""
    ref = _alias(named)
    _change(settings, lambda client: client.rollback(ref), as_json=as_json, quiet=quiet)


@alias.command()
@click.argument("named", metavar="REPO@NAME", shell_complete=repositories)
@coordinator
@options.common
def rm(*, settings: Settings, named: str, as_json: bool, quiet: bool) -> None:
    """Remove an alias. Torrents and snapshots stay."""
    ref = _alias(named)
    _change(settings, lambda client: client.remove(ref), as_json=as_json, quiet=quiet, what="removed")


@alias.command()
@click.argument("repo", metavar="[REPO]", required=False, shell_complete=repositories)
@click.option("--moves", is_flag=True, help="List every known move of each alias, too.")
@coordinator
@options.common
def ls(*, settings: Settings, repo: str | None, moves: bool, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the aliases of the coordinators, or those of one repository."""
    wanted = RepoId(repo) if repo else None
    found = run_interruptible(
        _each(_coordinators(settings), lambda client: client.all(wanted)), interrupted=INTERRUPTED
    )
    listed = [(at, alias) for at, aliases in found for alias in aliases]
    if as_json:
        echo(_json(listed))
        return
    header = ("ALIAS", "COMMIT", "MOVED", "BY", "COORDINATOR")
    rows = [
        (str(alias.ref), move.commit, _time(move.at), move.by, str(at))
        for at, alias in listed
        for move in reversed(alias.moves if moves else alias.moves[-1:])
    ]
    echo(aligned(header, rows))


def _change(
    settings: Settings,
    change: Callable[[AliasClient], Awaitable[Alias]],
    *,
    as_json: bool,
    quiet: bool,
    what: str = "",
) -> None:
    moved: _Found = run_interruptible(_each(_coordinators(settings), change), interrupted=INTERRUPTED)
    if as_json:
        echo(_json(moved))
    elif not quiet:
        for at, alias in moved:
            echo(f"{alias.ref} {what or f'-> {alias.commit}'} at {at}")


async def _each(
    coordinators: tuple[Coordinator, ...], call: Callable[[AliasClient], Awaitable[T]]
) -> list[tuple[Coordinator, T]]:
    """Call every coordinator in turn. The error of one names those that were done before it."""
    done: list[tuple[Coordinator, T]] = []
    for each in coordinators:
        try:
            done.append((each, await call(AliasClient(each))))
        except P2PModelError as error:
            if not done:
                raise
            before = ", ".join(str(coordinator) for coordinator, _ in done)
            raise restored(error.code, f"{error.what} (done at {before})", hint=error.hint) from None
    return done


def _coordinators(settings: Settings) -> tuple[Coordinator, ...]:
    found = configured(settings)
    if not found:
        raise InvalidInput("no coordinator is configured", hint="give --coordinator URL")
    return found


def _alias(named: str) -> Reference:
    """The alias that an argument names; a repository alone is none."""
    ref = Reference.parse(named)
    if not named.endswith(f"@{ref.revision}"):
        raise InvalidInput(f"'{named}' names no alias", hint=f"write {ref.repo}@NAME, such as {ref.repo}@stable")
    check_alias(ref.revision)
    return ref


def _json(found: _Found) -> str:
    return json.dumps({"aliases": [alias_plain(alias) | {"coordinator": str(at)} for at, alias in found]})


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
