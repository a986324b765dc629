"""A token, and the TLS context of a server, from files and variables; a reload brings renewed certificates."""

import os
import shlex
import ssl
from pathlib import Path

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.coordinator.tokens import check_token
from p2pmodel.core.content.names import printable
from p2pmodel.core.files.own_files import read_secret
from p2pmodel.core.network.tokens import plain_token
from p2pmodel.errors import InvalidInput
from p2pmodel.service.roles.reload import Reload
from p2pmodel.tls import renew, server_context

SHORTEST_TOKEN = 16
"""Characters of a token that a server accepts as its own."""


def read_token(path: Path) -> str:
    """The token in `path`, a file that other users can neither read nor change. Raises InvalidInput."""
    return check_token(*read_secret(path))


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


def listener_tls(http: HttpSettings, *, optional: bool = False) -> ssl.SSLContext | None:
    """The context of `http.tls_*`; None where no certificate is set.

    `optional`: clients without a certificate get through the handshake, and the application refuses them. Raises
    InvalidInput for files that cannot be used, and for settings of which one lacks another.
    """
    if http.tls_certificate is None or http.tls_key is None:
        if http.tls_certificate or http.tls_key or http.tls_client_ca:
            raise InvalidInput("TLS needs a certificate and its key", hint="give --tls-cert and --tls-key")
        return None
    return server_context(http.tls_certificate, http.tls_key, http.tls_client_ca, optional=optional)


def renew_on(reload: Reload, http: HttpSettings, context: ssl.SSLContext | None) -> None:
    """Let a `context` of `listener_tls` use renewed files after each reload."""
    certificate, key = http.tls_certificate, http.tls_key
    if context is not None and certificate is not None and key is not None:
        reload.file("TLS certificate", lambda: renew(context, certificate, key, http.tls_client_ca))


def tls_context(http: HttpSettings, reload: Reload) -> ssl.SSLContext | None:
    """As `listener_tls`, with renewed files after each reload."""
    context = listener_tls(http)
    renew_on(reload, http, context)
    return context
