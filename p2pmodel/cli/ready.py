"""`p2pmodel ready`: what an inference engine's start and health hooks tell the node's daemon."""

import click

from p2pmodel.cli import options
from p2pmodel.cli.transfers import command_each
from p2pmodel.client import Client
from p2pmodel.config.settings import Settings
from p2pmodel.core.views import TransferView


@click.command()
@click.argument("repo", metavar="REPO[@REV]")
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=0, min_open=True, max=30 * 86400),
    metavar="SECONDS",
    help="Believe it that long, unless it is said again (default: until --off, or the daemon starts anew).",
)
@click.option("--off", is_flag=True, help="The engine has it no longer.")
@options.socket
@options.common
def ready(*, settings: Settings, repo: str, seconds: float | None, off: bool, as_json: bool, quiet: bool) -> None:
    """Tell the daemon that an inference engine on this machine has REPO up, for its metric `engine_ready`."""

    async def say(client: Client, ident: str) -> TransferView:
        return await client.engine(ident, ready=not off, seconds=None if off else seconds)

    command_each(settings, repo, say, "not up any more:" if off else "up:", as_json=as_json, quiet=quiet)
