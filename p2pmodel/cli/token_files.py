"""Tokens from files and environment variables."""

import os
from pathlib import Path

from p2pmodel.coordinator.server.app import check_token
from p2pmodel.core.names import printable
from p2pmodel.errors import InvalidInput


def read_token(path: Path) -> str:
    """The coordinator token in `path`. Raises InvalidInput for a file that cannot be read or a malformed token."""
    try:
        return check_token(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        raise InvalidInput(f"the token file {printable(str(path))} cannot be read: {reason}") from None


def read_private_token(path: Path) -> str:
    """As `read_token`; raises InvalidInput too if group or others can access the file."""
    token = read_token(path)
    if path.stat().st_mode & 0o077:
        raise InvalidInput(
            f"others can read the token file {printable(str(path))}", hint=f"chmod 600 {printable(str(path))}"
        )
    return token


def mirror_token(file: Path | None, env: str | None) -> str | None:
    """The token of `--token-file` or `--token-env`, None if neither is given. Raises InvalidInput."""
    if file is not None and env is not None:
        raise InvalidInput("--token-file and --token-env are both given", hint="give one of them")
    if file is not None:
        token, place = _read(file), f"the token file {printable(str(file))}"
    elif env is not None:
        token, place = os.environ.get(env, ""), f"the environment variable {printable(env)}"
    else:
        return None
    token = token.strip()
    if not token or not token.isprintable() or " " in token:
        raise InvalidInput(f"{place} holds no token", hint="a token is one word of printable characters")
    return token


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidInput(f"the token file {printable(str(path))} cannot be read: {reason}") from None
