"""`p2pmodel config`: the settings of a command, and where each of them comes from."""

import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cli.terminal.table import aligned
from p2pmodel.config.provenance import DEFAULT, SettingValue
from p2pmodel.config.settings import Settings


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
