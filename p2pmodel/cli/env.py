"""`p2pmodel env`: what a shell exports for Hugging Face clients to go through this machine's daemon."""

import json
import os
import shlex
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.run import run
from p2pmodel.cli.transfers import connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.views import NodeView
from p2pmodel.errors import Unavailable

READ_SECONDS = 60
"""Seconds without a byte that a client with a cache of its own should bear: pieces come in no order."""


@click.command()
@options.server
@options.common
def env(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Print the environment of Hugging Face clients that go through the daemon, for sh: eval "$(p2pmodel env)".

    HF_HUB_CACHE is among it where you may write to the daemon's cache: clients then find its files there, and nothing
    is copied. With --json one object.
    """
    variables = run(_variables(settings), interrupted="interrupted")
    if as_json:
        click.echo(json.dumps(variables))
        return
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")


async def _variables(settings: Settings) -> dict[str, str]:
    async with connected(settings) as client:
        return variables_of(await client.node(), here=settings.client.server is None)


def variables_of(node: NodeView, *, here: bool = True) -> dict[str, str]:
    """By name; `here`: whether the daemon is on this machine. Raises Unavailable if it has no endpoint."""
    if node.hub is None:
        raise Unavailable("the daemon serves no hub endpoint", hint="set daemon.hub_listen and start it again")
    shared = {"HF_HUB_CACHE": node.cache_dir} if here and os.access(Path(node.cache_dir), os.W_OK) else {}
    return {
        "HF_ENDPOINT": node.hub,
        **shared,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": str(READ_SECONDS),
    }
