"""`p2pmodel mirror log`: checking what a mirror says it synced."""

import json
import re
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.run import run
from p2pmodel.cli.token_files import mirror_token
from p2pmodel.config.settings import Settings
from p2pmodel.errors import InvalidInput
from p2pmodel.node.hub.sync_log_check import check_log


@click.group()
def log() -> None:
    """The sync log: one line a file that came from upstream, each vouching for all before it."""


@log.command()
@click.argument("where", metavar="[FILE|URL]", required=False)
@click.option("--expect", metavar="HASH", help="A hash that this log ended with before: some line must have it.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the mirror's token.")
@click.option("--token-env", metavar="NAME", help="Environment variable with that token.")
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
    """Check every line of a sync log: this machine's, FILE, or that of a mirror (URL of its /sync-log).

    Prints the hash of the last line. Who keeps it finds out later, with --expect, that nothing up to there was
    changed, left out or added. With exit code 5 the first line that is wrong is named.
    """
    place = where or str(options.sync_log_path(settings, None))
    token = mirror_token(token_file, token_env)
    if expect is not None and not re.fullmatch("[0-9a-f]{64}", expect):
        raise InvalidInput("--expect is a hash of 64 hex digits", hint="this command prints one")
    head = run(check_log(place, token, expect=expect), interrupted="interrupted")
    click.echo(json.dumps({"lines": head.seq, "head": head.hash}) if as_json else head.hash)
    if not quiet and not as_json:
        click.echo(f"{head.seq} lines, none changed", err=True)
