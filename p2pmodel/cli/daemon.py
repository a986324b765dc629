"""`p2pmodel daemon`: the node of this machine, until stopped."""

import json
import resource
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.log import log
from p2pmodel.cli.run import serve
from p2pmodel.cli.token_files import read_private_token
from p2pmodel.config.settings import OFF, HttpSettings, Settings
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.core.notes import info
from p2pmodel.errors import InvalidInput
from p2pmodel.http.server import check_exposure
from p2pmodel.service.roles.daemon import Daemon, DaemonAddresses, TcpRole
from p2pmodel.service.roles.hub_endpoint import DEFAULT, HubRole, check_mirrors
from p2pmodel.tls import server_context

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
@click.option(
    "--hub-listen",
    "_set_daemon__hub_listen",
    metavar="ADDRESS:PORT|off",
    help="Where HF_ENDPOINT clients find it (127.0.0.1:8092).",
)
@click.option(
    "--access-log",
    type=click.Path(path_type=Path),
    help="Append one JSON line for each of their requests to this file.",
)
@options.tls
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
    access_log: Path | None,
    as_json: bool,
    quiet: bool,  # noqa: ARG001 - the log's level follows it
) -> None:
    """Keep this machine's node: bring snapshots here when asked to, and serve them, until stopped.

    'p2pmodel fetch', 'status', 'pause' and others find it by its unix socket. Stopped at any time, it goes on with
    every transfer when it starts again. With --json one line appears on stdout once it can be asked. SIGTERM ends it
    with exit code 0, Ctrl-C with 130.
    """
    _open_as_many_files_as_may()
    hub_listen = _hub_listen(settings)
    if control_listen is None and (read_only or (token_file and (hub_listen or DEFAULT).loopback)):
        raise InvalidInput(
            "--token-file and --read-only go with --control-listen",
            hint="--token-file also goes with a --hub-listen that other machines reach",
        )
    token = read_private_token(token_file) if token_file else None
    tls = _tls(settings.http, used=control_listen is not None or hub_listen is not None)
    open_to = _TcpAddress(token, tls, protected=token is not None or settings.http.asks_for_certificates)
    hub = _hub(settings, hub_listen, open_to, access_log)
    tcp = _tcp(control_listen, open_to, read_only=read_only)

    def ready(where: DaemonAddresses) -> None:
        plain: dict[str, Any] = {"socket": str(where.socket), "url": where.url, "peer": str(where.peer)}
        plain["hub"] = where.hub
        if as_json:
            click.echo(json.dumps(plain))
        addresses = f"{where.socket} and {where.url}" if where.url else str(where.socket)
        log(info("daemon_ready", f"ready at {addresses}; peers connect to {where.peer}", **plain))
        if where.hub:
            log(info("hub_endpoint_ready", f"HF_ENDPOINT={where.hub} ('p2pmodel env' prints the exports)"))

    serve(Daemon(settings, tcp, log, hub).run(ready), interrupted=INTERRUPTED)


def _open_as_many_files_as_may() -> None:
    """The usual 1024 are few for a node: each shard and each peer is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MOST_FILES)), hard))


def _hub_listen(settings: Settings) -> ListenAddress | None:
    listen = settings.daemon.hub_listen
    return None if listen in (None, OFF) else ListenAddress.parse(str(listen))


@dataclass(frozen=True, slots=True)
class _TcpAddress:
    """Who gets in over TCP, and how: whether those of other machines must show a token or a certificate."""

    token: str | None
    tls: ssl.SSLContext | None
    protected: bool


def _tls(http: HttpSettings, *, used: bool) -> ssl.SSLContext | None:
    """The context for the addresses that are named; not for the endpoint's usual one, which no certificate names."""
    if http.tls_certificate is None or http.tls_key is None:
        if http.tls_certificate or http.tls_key or http.tls_client_ca:
            raise InvalidInput("TLS needs a certificate and its key", hint="give --tls-cert and --tls-key")
        return None
    context = server_context(http.tls_certificate, http.tls_key, http.tls_client_ca)
    if not used:
        raise InvalidInput("--tls-cert goes with --control-listen or --hub-listen", hint="name the address to serve")
    return context


def _hub(
    settings: Settings, address: ListenAddress | None, door: _TcpAddress, access_log: Path | None
) -> HubRole | None:
    if settings.daemon.hub_listen == OFF:
        return None
    if address is None:
        role = HubRole(access_log=access_log)
    else:
        check_exposure(address, protected=door.protected, insecure_public=None)
        role = HubRole(address, None if address.loopback else door.token, access_log, door.tls)
    check_mirrors(settings, role)
    return role


def _tcp(listen: str | None, door: _TcpAddress, *, read_only: bool) -> TcpRole | None:
    if listen is None:
        return None
    address = ListenAddress.parse(listen)
    check_exposure(address, protected=door.protected, insecure_public=None)
    return TcpRole(address, door.token, read_only, door.tls)
