"""`p2pmodel audit`: show, verify and export the audit logs."""

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.option_types import Count
from p2pmodel.cli.terminal.output import aligned, echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.files.hash_chain import parsed_line
from p2pmodel.core.sizes import counted
from p2pmodel.errors import InvalidInput, NotFound
from p2pmodel.service.roles.client_access import audit_folder
from p2pmodel.trust.audit_log import lines_of, servers_of, verify_audit

_DAY = re.compile(r"\d{4}-\d\d-\d\d(T[0-9:.]+)?")


@click.group()
def audit() -> None:
    """Read the audit logs: which client got which snapshot, when, and by which right (audit.enabled)."""


def _selection(verb: Callable[..., Any]) -> Callable[..., Any]:
    for name, meaning in (
        ("--until", "Only before this time, as 2026-11-30 or 2026-11-30T08:00."),
        ("--since", "Only from this time on."),
        ("--subject", "Only this client, as user:anna."),
        ("--repo", "Only this repository."),
    ):
        verb = click.option(name, metavar="VALUE", help=meaning)(verb)
    return _server(verb)


def _server(verb: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--server", metavar="NAME", help="Only the log of this server, as daemon (default: all).")(verb)


@audit.command()
@_selection
@click.option("-n", "--lines", type=Count(min=1), default=50, show_default=True, help="Most lines to show.")
@options.common
def show(*, settings: Settings, lines: int, as_json: bool, quiet: bool, **wanted: Any) -> None:  # noqa: ARG001
    """Show the latest lines, the oldest of them first."""
    latest = deque(_matching(audit_folder(settings), wanted), maxlen=lines)
    if as_json:
        echo(json.dumps({"lines": [parsed_line(line) for line in latest]}))
        return
    rows = []
    for line in latest:
        body = parsed_line(line) or {}
        commit = str(body.get("commit"))[:12]
        of = f"{body.get('repo')}@{commit}" if commit else str(body.get("repo"))
        what = " ".join(filter(None, (str(body.get("path") or body.get("what")), body.get("verb"))))
        rows.append((*(str(body.get(key)) for key in ("time", "subject", "client")), of, what, str(body.get("right"))))
    echo(aligned(("TIME", "CLIENT", "ADDRESS", "SNAPSHOT", "WHAT", "RIGHT"), rows))


@audit.command()
@_server
@click.option("--expect", metavar="HASH", help="Hash of the last line at an earlier check, with --server.")
@options.common
def verify(*, settings: Settings, server: str | None, expect: str | None, as_json: bool, quiet: bool) -> None:
    """Verify every line. Prints the hash of the last line of each log; exits with code 5 at the first wrong line."""
    if expect is not None and (server is None or not re.fullmatch("[0-9a-f]{64}", expect)):
        raise InvalidInput("--expect needs --server and a hash of 64 hex digits", hint="this command prints the hash")
    folder = audit_folder(settings)
    for name in _servers(folder, server):
        first, head = verify_audit(folder, name, expect)
        if as_json:
            echo(json.dumps({"server": name, "first": first, "lines": head.seq, "head": head.hash}))
            continue
        echo(f"{head.hash} {name}")
        if not quiet:
            gone = f"; lines before {first} are not here" if first > 1 else ""
            echo(f"{name}: {counted(head.seq - first + 1, 'line')}, none changed{gone}", err=True)


@audit.command()
@_selection
@options.common
def export(*, settings: Settings, as_json: bool, quiet: bool, **wanted: Any) -> None:  # noqa: ARG001 - of all verbs
    """Print the lines as they are in the log, one JSON object each, for other programs."""
    for line in _matching(audit_folder(settings), wanted):
        echo(line.decode().rstrip("\n"))


def _servers(folder: Path, server: str | None) -> list[str]:
    found = [server] if server is not None else servers_of(folder)
    if not found:
        raise NotFound(f"there is no audit log in {folder}", hint="set audit.enabled, and restart the servers")
    return found


def _matching(folder: Path, wanted: dict[str, Any]) -> Iterator[bytes]:
    """The lines that the options select."""
    since, until = wanted["since"] or "", wanted["until"] or "9"
    for text in (wanted["since"], wanted["until"]):
        if text is not None and not _DAY.fullmatch(text):
            raise InvalidInput(f"'{text}' is not a time", hint="write 2026-11-30 or 2026-11-30T08:00 (UTC)")
    for server in _servers(folder, wanted["server"]):
        for line in lines_of(folder, server):
            body = parsed_line(line) or {}
            if all(wanted[key] in (None, body.get(key)) for key in ("subject", "repo")) and (
                since <= str(body.get("time")) < until
            ):
                yield line
