"""`p2pmodel why`: what limits the rate of a transfer of the daemon now, with advice."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cli.transfers.daemon_client import chosen, connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.progress.diagnosis import Diagnosis
from p2pmodel.core.sizes import human


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
