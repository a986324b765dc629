"""The form of a host's name, before it is given to ssh or to Slurm."""

import re

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})")


def check_host(name: str) -> str:
    """Return `name` if it is the name of a host: no blanks, no user, nothing that a command takes for an option."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"'{printable(name)}' is not the name of a host",
            hint="a user and a port belong into the ssh configuration",
        )
    return name
