"""`p2pmodel mirror log`: verify the hash chain of a sync log."""

import json
import re
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cli.token_files import mirror_token
from p2pmodel.config.settings import Settings
from p2pmodel.core.sizes import counted
from p2pmodel.errors import InvalidInput
from p2pmodel.node.hub.sync_log_check import check_log


@click.group()
def log() -> None:
    """Verify the sync log: one line for each file synced from upstream, chained by hashes."""


@log.command()
@click.argument("where", metavar="[FILE|URL]", required=False)
@click.option(
    "--expect", metavar="HASH", help="Hash of the last line at an earlier check; a line of the log must have it."
)
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token of the mirror.")
@click.option("--token-env", metavar="NAME", help="Environment variable with the token of the mirror.")
@options.common
def verify(
    *,
    settings: Settings,
    where: str | None,
    expect: str | None,
    token_file: Path | None,
    token_env: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Verify every line of a sync log: this machine's, FILE, or that of a mirror (URL of its /sync-log).

    Prints the hash of the last line. A later check with --expect and that hash shows that no line up to there was
    changed, removed or added. Exits with code 5 and the number of the first wrong line.
    """
    place = where or str(options.sync_log_path(settings, None))
    token = mirror_token(token_file, token_env)
    if expect is not None and not re.fullmatch("[0-9a-f]{64}", expect):
        raise InvalidInput("--expect needs a hash of 64 hex digits", hint="use the hash that this command prints")
    check = check_log(place, token, expect=expect, proxies=settings.origin.proxies)
    head = run_interruptible(check, interrupted="interrupted")
    echo(json.dumps({"lines": head.seq, "head": head.hash}) if as_json else head.hash)
    if not quiet and not as_json:
        echo(f"{counted(head.seq, 'line')}, none changed", err=True)
