"""`p2pmodel token`: issue, list and revoke machine tokens."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.terminal.output import aligned, echo
from p2pmodel.config.settings import Settings
from p2pmodel.service.roles.client_access import tokens_file
from p2pmodel.trust.access.machine_tokens import MachineToken, MachineTokens


@click.group()
def token() -> None:
    """Issue, list and revoke tokens of machines and programs for the servers of this user.

    Rules in the settings (access.rules) name them as token:NAME, and their groups as group:GROUP.
    """


@token.command()
@click.argument("name")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Group of the client; repeatable.")
@click.option(
    "--expires", callback=options.duration, metavar="TIME", help="Lifetime, as 30d or 12h (default: until revoked)."
)
@options.common
def issue(
    *, settings: Settings, name: str, groups: tuple[str, ...], expires: float | None, as_json: bool, quiet: bool
) -> None:
    """Make a token for NAME and print it on stdout, once: only its hash is stored.

    Clients send it as HF_TOKEN to hub endpoints and mirrors, and nodes have it in coordinator_token_file.
    """
    made = MachineTokens(tokens_file(settings)).issue(name, groups, expires)
    echo(json.dumps({"name": name, "groups": groups, "token": made}) if as_json else made)
    if not quiet and not as_json:
        echo(f"keep it in a file of mode 0600: it is not shown again. Rules name it token:{name}", err=True)


@token.command("list")
@options.common
def list_tokens(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001 - of all verbs
    """List the tokens that were issued, without their text."""
    now = time.time()
    found = MachineTokens(tokens_file(settings)).all()
    if as_json:
        echo(json.dumps({"tokens": [_plain(each, now) for each in found]}))
        return
    rows = [
        (each.name, each.state(now), ", ".join(each.groups), _day(each.created), _day(each.expires) or "never")
        for each in found
    ]
    echo(aligned(("NAME", "STATE", "GROUPS", "ISSUED", "EXPIRES"), rows))


@token.command()
@click.argument("name")
@options.common
def revoke(*, settings: Settings, name: str, as_json: bool, quiet: bool) -> None:
    """Revoke the token NAME. Running servers of this user refuse it a second later."""
    revoked = MachineTokens(tokens_file(settings)).revoke(name)
    if as_json:
        echo(json.dumps(_plain(revoked, time.time())))
    elif not quiet:
        echo(f"revoked {name}", err=True)


def _plain(each: MachineToken, now: float) -> dict[str, Any]:
    return {
        "name": each.name,
        "state": each.state(now),
        "groups": list(each.groups),
        "issued": _day(each.created),
        "expires": _day(each.expires) or None,
        "revoked": _day(each.revoked) or None,
    }


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""
