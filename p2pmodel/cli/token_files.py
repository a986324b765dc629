"""Tokens from files and environment variables."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from p2pmodel.coordinator.server.credentials import Credentials, check_publisher
from p2pmodel.coordinator.tokens import check_token
from p2pmodel.core.content.names import printable
from p2pmodel.core.files.own_files import read_secret
from p2pmodel.core.network.tokens import plain_token
from p2pmodel.errors import InvalidInput
from p2pmodel.http.admission.access import ServerToken
from p2pmodel.service.roles.reload import Reload

SHORTEST_TOKEN = 16
"""Characters of a token that a server accepts as its own."""


def read_token(path: Path) -> str:
    """The token in `path`, a file that other users can neither read nor change. Raises InvalidInput."""
    return check_token(*read_secret(path))


def server_token(file: Path | None, reload: Reload) -> ServerToken | None:
    """The token in `file`, read again at each reload; None without a file. Raises InvalidInput."""
    if file is None:
        return None
    token = ServerToken(read_token(file))
    reload.file("token file", lambda: token.replace(read_token(file)))
    return token


def coordinator_credentials(member: Path | None, publishers: Sequence[Path], admin: Path | None) -> Credentials:
    """The credentials of a coordinator from its token files; the stem of a publisher's file is its name.

    Raises InvalidInput, also if one token stands in two files.
    """
    named = [(check_publisher(path.stem), path) for path in publishers]
    if len(dict(named)) != len(named):
        raise InvalidInput(
            "two --publish-token-file have one name", hint="the name before the suffix is the publisher's"
        )
    credentials = Credentials(
        member=read_token(member) if member else None,
        publishers={name: read_token(path) for name, path in named},
        admin=read_token(admin) if admin else None,
    )
    tokens = [*filter(None, (credentials.member, credentials.admin)), *credentials.publishers.values()]
    if len(set(tokens)) != len(tokens):
        raise InvalidInput("one token is in two token files", hint="make each with 'openssl rand -hex 16'")
    return credentials


def on_each_node(token_file: Path | None) -> str:
    """The beginning of a command line for the nodes of a coordinator, which works on each host as it stands."""
    if token_file is None:
        return "on each node: "
    path = shlex.quote(str(token_file.absolute()))
    return f"on each node, with a copy of the token file (mode 0600): P2PMODEL_COORDINATOR_TOKEN_FILE={path} "


def mirror_token(file: Path | None, env: str | None, *, shortest: int = 1) -> str | None:
    """The token of `--token-file` or `--token-env`, None if neither is given.

    Raises InvalidInput, also for a token of fewer than `shortest` characters.
    """
    if file is not None and env is not None:
        raise InvalidInput("--token-file and --token-env are both given", hint="give one of them")
    if file is not None:
        text, place = read_secret(file)
    elif env is not None and env not in os.environ:
        raise InvalidInput(f"the environment variable {printable(env)} is not set", hint="set it to the token")
    elif env is not None:
        text, place = os.environ[env], f"the environment variable {printable(env)}"
    else:
        return None
    return plain_token(text, place, shortest=shortest)
