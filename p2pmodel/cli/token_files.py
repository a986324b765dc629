"""Tokens from files and environment variables."""

import os
from pathlib import Path

from p2pmodel.coordinator.server.app import check_token
from p2pmodel.core.names import printable
from p2pmodel.core.own_files import read_secret
from p2pmodel.errors import InvalidInput


def read_token(path: Path) -> str:
    """The token in `path`, a file that other users can neither read nor change. Raises InvalidInput."""
    return check_token(read_secret(path))


def mirror_token(file: Path | None, env: str | None) -> str | None:
    """The token of `--token-file` or `--token-env`, None if neither is given. Raises InvalidInput."""
    if file is not None and env is not None:
        raise InvalidInput("--token-file and --token-env are both given", hint="give one of them")
    if file is not None:
        token, place = read_secret(file), f"the token file {printable(str(file))}"
    elif env is not None:
        token, place = os.environ.get(env, ""), f"the environment variable {printable(env)}"
    else:
        return None
    token = token.strip()
    if not token or not token.isprintable() or " " in token:
        raise InvalidInput(f"{place} holds no token", hint="a token is one word of printable characters")
    return token
