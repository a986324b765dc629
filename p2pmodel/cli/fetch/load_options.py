"""The options of commands that load a model."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from p2pmodel.loading.options import ATTENTIONS, DEVICE_MAPS, DTYPES, LoadOptions

C = TypeVar("C", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--allow-pickle", is_flag=True, help="Also load pytorch_model.bin where there are no safetensors."),
    click.option("--device", help="Device to load on (default: cuda if present, else cpu)."),
    click.option(
        "--device-map", type=click.Choice(DEVICE_MAPS), help="Spread the layers over several devices in this way."
    ),
    click.option(
        "--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Type of the weights in memory."
    ),
    click.option("--attn", type=click.Choice(ATTENTIONS), help="Attention implementation (default: the library's)."),
)


def load_options(command: C) -> C:
    """Add the options to `command`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load_options_of(flags: dict[str, Any]) -> LoadOptions:
    """The options of one run."""
    return LoadOptions(
        device=flags["device"],
        dtype=flags["dtype"],
        device_map=flags["device_map"],
        attn=flags["attn"],
        allow_pickle=flags["allow_pickle"],
    )
