"""`p2pmodel why`: what bounds a transfer of the node's daemon now, and what would help."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.run import run
from p2pmodel.cli.transfers import chosen, connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.diagnosis import Diagnosis
from p2pmodel.core.sizes import human


@click.command()
@click.argument("repo", metavar="REPO[@REV]")
@options.server
@options.common
def why(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Say what bounds the daemon's transfers of REPO now, and what would help; it looks for a second."""
    found = run(_asked(settings, repo), interrupted="interrupted")
    if as_json:
        click.echo(json.dumps({"transfers": [dataclasses.asdict(each) for each in found]}))
    else:
        for each in found:
            click.echo(words(each))


async def _asked(settings: Settings, repo: str) -> list[Diagnosis]:
    async with connected(settings) as client:
        return [await client.why(view.id) for view in chosen(await client.transfers(), repo)]


def words(found: Diagnosis) -> str:
    """A diagnosis as one line."""
    line = f"{found.repo}: {found.bound}: {found.what}"
    if found.rate:
        line += f" ({human(found.rate)}/s"
        line += f" of {human(found.capacity)}/s, {found.ratio:.0%})" if found.capacity and found.ratio else ")"
    return f"{line}; {found.advice}" if found.advice else line
