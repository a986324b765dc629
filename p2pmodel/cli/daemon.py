"""`p2pmodel daemon`: the node of this machine, until stopped."""

import json
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.log import logger
from p2pmodel.cli.running import serve
from p2pmodel.cli.secrets import read_private_token
from p2pmodel.domain.addresses import ListenAddress
from p2pmodel.errors import InvalidInput
from p2pmodel.service.daemon import Daemon, Ready, TcpRole
from p2pmodel.service.server import check_exposure
from p2pmodel.settings import Settings

MOST_FILES = 65_536
INTERRUPTED = "stopped; the next start goes on with every transfer"


@click.command()
@click.option("--control-listen", metavar="ADDRESS:PORT", help="Serve the control API over TCP, too.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="Token that is asked for over TCP; a file of mode 0600."
)
@click.option("--read-only", is_flag=True, help="Over TCP, let nobody change anything.")
@click.option(
    "--max-active", "_set_daemon__max_active", type=int, metavar="N", help="Download at most N at a time (3)."
)
@options.socket
@options.listen
@options.origin
@options.common
def daemon(
    *,
    settings: Settings,
    control_listen: str | None,
    token_file: Path | None,
    read_only: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Keep this machine's node: bring snapshots here when asked to, and serve them, until stopped.

    'p2pmodel fetch', 'status', 'pause' and others find it by its unix socket. Stopped at any time, it goes on with
    every transfer when it starts again. With --json one line appears on stdout once it can be asked. SIGTERM ends it
    with exit code 0, Ctrl-C with 130.
    """
    _open_as_many_files_as_may()
    tcp = _tcp(control_listen, token_file, read_only=read_only)
    log = logger(quiet=quiet)

    def ready(where: Ready) -> None:
        plain: dict[str, Any] = {"socket": str(where.socket), "url": where.url, "peer": str(where.peer)}
        if as_json:
            click.echo(json.dumps(plain))
        log(
            f"ready at {where.socket}" + (f" and {where.url}" if where.url else "") + f"; peers connect to {where.peer}"
        )

    serve(Daemon(settings, tcp, log).run(ready), interrupted=INTERRUPTED)


def _open_as_many_files_as_may() -> None:
    """The usual 1024 are few for a node: each shard and each peer is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MOST_FILES)), hard))


def _tcp(listen: str | None, token_file: Path | None, *, read_only: bool) -> TcpRole | None:
    if listen is None:
        if token_file or read_only:
            raise InvalidInput("--token-file and --read-only go with --control-listen")
        return None
    address = ListenAddress.parse(listen)
    token = read_private_token(token_file) if token_file else None
    check_exposure(address, protected=token is not None)
    return TcpRole(address, token, read_only)
