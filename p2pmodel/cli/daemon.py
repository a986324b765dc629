"""`p2pmodel daemon`: run this machine's node until stopped."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.option_types import Count, PathName
from p2pmodel.cli.rollout.options import node_name
from p2pmodel.cli.secret_files import tls_context
from p2pmodel.cli.server_tokens import server_token
from p2pmodel.cli.signals import run_service
from p2pmodel.cli.terminal.log import log
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.sections.daemon import OFF
from p2pmodel.config.settings import Settings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.notes import info
from p2pmodel.errors import InvalidInput
from p2pmodel.http.admission.access import ServerToken
from p2pmodel.http.server import check_exposure
from p2pmodel.node.local_address import address_notes, with_peer_address
from p2pmodel.service.roles.daemon import Daemon, DaemonAddresses, TcpRole
from p2pmodel.service.roles.hub_endpoint import DEFAULT, HubRole, check_mirrors

INTERRUPTED = "stopped; the next start resumes every transfer"


@click.command()
@click.option("--control-listen", metavar="ADDRESS:PORT", help="Also serve the control API over TCP.")
@click.option("--token-file", type=PathName(), help="File with the token that TCP clients must send; mode 0600.")
@click.option("--read-only", is_flag=True, help="Refuse every change over TCP.")
@click.option(
    "--max-active",
    "_set_daemon__max_active",
    type=Count(min=1),
    metavar="N",
    help="Bound on concurrent downloads (default: 3).",
)
@click.option(
    "--hub-listen",
    "_set_daemon__hub_listen",
    metavar="ADDRESS:PORT|off",
    help="Address of the hub endpoint for HF_ENDPOINT clients (default: 127.0.0.1:8092).",
)
@click.option(
    "--access-log",
    type=PathName(),
    help="Append one JSON line for each request to the hub endpoint to this file.",
)
@options.tls
@options.local_users
@options.endpoint_url
@options.socket
@node_name
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
    """Run this machine's node: download snapshots on request, and seed them, until stopped.

    'p2pmodel fetch', 'status', 'pause' and other verbs reach it through its unix socket. It resumes every transfer
    when it starts again. With --json one line appears on stdout once it is ready. SIGTERM ends it with exit code 0,
    Ctrl-C with 130.
    """
    hub_listen = _hub_listen(settings)
    if control_listen is None and (read_only or (token_file and (hub_listen or DEFAULT).loopback)):
        raise InvalidInput(
            "--token-file and --read-only need --control-listen",
            hint="--token-file also applies to a --hub-listen address that is not loopback",
        )
    reload = options.reload(settings)
    token = server_token(token_file, reload)
    tls = tls_context(settings.http, reload)
    access = _TcpAccess(token, tls, protected=_is_protected(token, settings))
    hub = _hub(settings, hub_listen, access, access_log)
    tcp = _tcp(control_listen, access, read_only=read_only)

    def ready(where: DaemonAddresses) -> None:
        plain: dict[str, Any] = {"socket": str(where.socket), "url": where.url, "peer": str(where.peers[0])}
        plain["peers"] = [str(peer) for peer in where.peers]
        plain["hub"] = where.hub
        if as_json:
            echo(json.dumps(plain))
        addresses = f"{where.socket} and {where.url}" if where.url else str(where.socket)
        log(info("daemon_ready", f"ready at {addresses}; peers connect to {', '.join(plain['peers'])}", **plain))
        if where.hub:
            log(info("hub_endpoint_ready", f"HF_ENDPOINT={where.hub} ('p2pmodel env' prints the exports)"))

    placed = with_peer_address(settings)
    for note in address_notes(placed):
        log(note)
    node = Daemon(placed, tcp, log, hub, reload=reload, source_tls=tls)
    run_service(node.run(ready), interrupted=INTERRUPTED, reload=reload)


def _is_protected(token: ServerToken | None, settings: Settings) -> bool:
    return token is not None or settings.http.asks_for_certificates or bool(settings.access.rules)


def _hub_listen(settings: Settings) -> ListenAddress | None:
    listen = settings.daemon.hub_listen
    return None if listen in (None, OFF) else ListenAddress.parse(str(listen))


@dataclass(frozen=True, slots=True)
class _TcpAccess:
    """Access over TCP. `protected`: clients on other machines must present the token or a certificate."""

    token: ServerToken | None
    tls: ssl.SSLContext | None
    protected: bool


def _hub(
    settings: Settings, address: ListenAddress | None, access: _TcpAccess, access_log: Path | None
) -> HubRole | None:
    if settings.daemon.hub_listen == OFF:
        return None
    if address is None:
        role = HubRole(access_log=access_log)
    else:
        check_exposure(address, protected=access.protected, insecure_public=None)
        role = HubRole(address, None if address.loopback else access.token, access_log, access.tls)
    check_mirrors(settings, role)
    return role


def _tcp(listen: str | None, access: _TcpAccess, *, read_only: bool) -> TcpRole | None:
    if listen is None:
        return None
    address = ListenAddress.parse(listen)
    check_exposure(address, protected=access.protected, insecure_public=None)
    return TcpRole(address, access.token, read_only, access.tls)
