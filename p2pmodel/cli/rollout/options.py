"""Options about roll-outs that other verbs have, too."""

from collections.abc import Callable
from typing import Any

import click


def node_name(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--node-name`. Goes above `common`."""
    return click.option(
        "--node-name", "_set_node_name", metavar="NAME", help="Name of this node in roll-outs (default: the host name)."
    )(verb)


def coordinator(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--coordinator` (repeatable). Goes above `common`."""
    return click.option(
        "--coordinator", "_set_coordinators", multiple=True, metavar="URL", help="URL of a coordinator; repeatable."
    )(verb)
