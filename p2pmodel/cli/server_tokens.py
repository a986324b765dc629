"""The tokens that a server accepts, from its token files."""

from collections.abc import Sequence
from pathlib import Path

from p2pmodel.cli.secret_files import read_token
from p2pmodel.coordinator.server.credentials import Credentials, check_publisher
from p2pmodel.errors import InvalidInput
from p2pmodel.http.admission.access import ServerToken
from p2pmodel.service.roles.reload import Reload


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
