"""`p2pmodel config` and `env`: the settings of a command and their places, and the environment of hub clients."""

import json
import os
import shlex
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import aligned, echo, result
from p2pmodel.cli.transfers.daemon_client import connected
from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import DEFAULT, SettingValue
from p2pmodel.core.progress.views import NodeView
from p2pmodel.errors import Unavailable


@click.group()
def config() -> None:
    """Show the settings that commands use here."""


@config.command()
@click.option("--all", "everything", is_flag=True, help="Also show settings that have their default.")
@options.common
def show(*, settings: Settings, everything: bool, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Print each setting that is not a default, its value, and where it comes from.

    Reads the settings as every command does, so it also checks them. Of a secret it prints only that it is set.
    """
    found = [each for each in options.values(settings) if everything or each.source != DEFAULT]
    if as_json:
        echo(json.dumps({"settings": [{"key": v.key, "value": v.value, "source": v.source} for v in found]}))
    elif found:
        echo(aligned(("SETTING", "VALUE", "FROM"), [row for each in found for row in _rows(each)]))
    else:
        echo("every setting has its default; 'p2pmodel config show --all' lists them", err=True)


def _rows(value: SettingValue) -> list[tuple[str, ...]]:
    """One line, or one for each key of each table of a list."""
    if isinstance(value.value, list) and any(isinstance(each, dict) for each in value.value):
        return [
            (f"{value.key}[{index}].{key}", _text(each), value.source)
            for index, table in enumerate(value.value)
            for key, each in table.items()
            if each not in (None, [], False)
        ]
    return [(value.key, _text(value.value), value.source)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


READ_SECONDS = 60
"""Read timeout for clients with a cache of their own: pieces arrive in any order, so a file may pause."""


@click.command()
@options.server
@options.common
def env(*, settings: Settings, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Print the environment for Hugging Face clients of the daemon, for sh: eval "$(p2pmodel env)".

    Includes HF_HUB_CACHE if the daemon's cache is writable for you: clients then use its files without a copy. With
    --json prints one object.
    """
    variables = run_interruptible(_variables(settings), interrupted="interrupted")
    if as_json:
        echo(json.dumps(variables))
        return
    for name, value in variables.items():
        result(f"export {name}={shlex.quote(value)}")


async def _variables(settings: Settings) -> dict[str, str]:
    async with connected(settings) as client:
        return variables_of(await client.node(), here=settings.client.server is None)


def variables_of(node: NodeView, *, here: bool = True) -> dict[str, str]:
    """The variables by name. `here`: the daemon is on this machine. Raises Unavailable if it has no hub endpoint."""
    if node.hub is None:
        raise Unavailable("the daemon serves no hub endpoint", hint="set daemon.hub_listen and restart it")
    shared = {"HF_HUB_CACHE": node.cache_dir} if here and os.access(Path(node.cache_dir), os.W_OK) else {}
    return {
        "HF_ENDPOINT": node.hub,
        **shared,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",  # `hf` asks PyPI for a newer version of itself, past the endpoint
        "HF_HUB_DOWNLOAD_TIMEOUT": str(READ_SECONDS),
    }
