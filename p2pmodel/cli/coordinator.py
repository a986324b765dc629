"""`p2pmodel coordinator`: the coordinator role on its own."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import click
from aiohttp import web

from p2pmodel.cli import options
from p2pmodel.cli.option_types import Count, Number, PathName
from p2pmodel.cli.secret_files import listener_tls, on_each_node, renew_on
from p2pmodel.cli.signals import run_service
from p2pmodel.cli.terminal.log import log
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.server.app import ORIGIN_BUDGET, PublicAddress, coordinator_app
from p2pmodel.coordinator.server.catalog.aliases import Aliases
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.catalog_folder import CatalogFolder
from p2pmodel.coordinator.server.catalog.signatures import SignatureStore
from p2pmodel.coordinator.server.credentials import Credentials
from p2pmodel.coordinator.server.private_swarms import PrivateSwarms
from p2pmodel.coordinator.server.probes import ConnectionProbes
from p2pmodel.coordinator.server.rollouts.folder import RolloutFolder
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import INTERVAL, Tracker, anything
from p2pmodel.coordinator.tokens import announce_url
from p2pmodel.core.files.private_files import private_folder
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.sizes import counted
from p2pmodel.errors import InvalidInput
from p2pmodel.http.server import check_exposure
from p2pmodel.service.roles.client_access import authoriser_of, clients_of
from p2pmodel.service.roles.coordinator import CoordinatorRole, ServedCoordinator, serving_coordinator
from p2pmodel.store.files.space import check_writable
from p2pmodel.trust.access.authoriser import ClientAccess

DEFAULT_LISTEN = "127.0.0.1:6969"


@click.command()
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, metavar="ADDRESS:PORT", help="Where to listen.")
@options.advertise
@options.public_url
@options.credentials
@options.tls
@click.option("--insecure-public", is_flag=True, help="Serve other machines without a token.")
@click.option("--state-dir", type=PathName(), help="Keep catalog, roll-outs and numbers of certificates here.")
@click.option("--interval", type=Count(5, 3600), default=INTERVAL, show_default=True, help="Seconds between announces.")
@click.option("--registered-only", is_flag=True, help="Track only torrents of the catalog, not any info-hash.")
@click.option("--full-scrape", is_flag=True, help="Answer a scrape that names no info-hash with all of them.")
@click.option(
    "--origin-budget",
    type=Number(min=0),
    default=ORIGIN_BUDGET,
    show_default=True,
    help="Copies of a snapshot that its peers may take from the mirrors together; 0: no limit.",
)
@options.common
def coordinator(
    *,
    settings: Settings,
    listen: str,
    public_url: str | None,
    token_file: Path | None,
    credentials: Credentials,
    insecure_public: bool,
    state_dir: Path | None,
    interval: int,
    registered_only: bool,
    full_scrape: bool,
    origin_budget: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Serve a coordinator: tracker, catalog of torrents, leases, assembly and roll-outs.

    Runs until stopped: exit code 0 after SIGTERM, 130 after SIGINT. Publishers publish into the catalog; peers and
    other programs announce at http://ADDRESS:PORT/announce. Without --publish-token-file it makes a token for
    publishers of the same user on this machine. With --json one line appears on stdout once it listens.
    """
    address = ListenAddress.parse(listen)
    protected = credentials.member is not None or bool(settings.access.rules)
    check_exposure(address, protected=protected, insecure_public=insecure_public)
    tls = listener_tls(settings.http, optional=True)
    if state_dir:
        private_folder(state_dir)
        check_writable(state_dir)
    catalog, rollouts = _kept(state_dir, settings)
    signatures, aliases = SignatureStore(state_dir), Aliases(catalog, state_dir, note=log)
    admits = catalog.admits if registered_only else anything
    tracker = _tracker(settings, interval=interval, full_scrape=full_scrape, admits=admits)
    role = CoordinatorRole.of(address, public_url, credentials, tls)
    private, reload = _private(catalog, settings, credentials, state_dir), options.reload(settings, role.credentials)
    reload.setting("private.revoked", apply=lambda now: private.revoke(now.private))
    renew_on(reload, settings.http, tls)
    known = clients_of(settings, f"coordinator-{address.port}", authoriser_of(settings, reload))
    ready = _ReadyCoordinator(token_file, as_json=as_json, quiet=quiet)

    def make(public: PublicAddress, clients: ClientAccess) -> web.Application:
        return coordinator_app(
            tracker,
            catalog,
            credentials=role.credentials,
            origin_budget=origin_budget,
            address=public,
            quotas=settings.quotas,
            rollouts=rollouts,
            signatures=signatures,
            certificates=role.requires_certificates,
            private=private,
            clients=clients,
            aliases=aliases,
        )

    work = _run(
        role, catalog, known, make, ready, settings=settings, rollouts=rollouts, signatures=signatures, aliases=aliases
    )
    run_service(work, interrupted="the coordinator was stopped", reload=reload)


def _tracker(settings: Settings, *, interval: int, full_scrape: bool, admits: Callable[[bytes], bool]) -> Tracker:
    probes = ConnectionProbes(enabled=settings.tracker.probe_peers)
    return Tracker(interval=interval, full_scrape=full_scrape, admits=admits, settings=settings.tracker, probes=probes)


def _private(catalog: Catalog, settings: Settings, credentials: Credentials, state_dir: Path | None) -> PrivateSwarms:
    """The private swarms. Raises InvalidInput for settings that admit no node."""
    folder = state_dir / "private-swarms" if state_dir else None
    private = PrivateSwarms.of(catalog, settings.private, folder=folder, note=log)
    if settings.private.ca_key is not None and credentials.member is None and not settings.access.rules:
        raise InvalidInput(
            "the coordinator of private swarms admits members alone, and has no token for them",
            hint="give --token-file, or rules in access.rules",
        )
    return private


def _kept(state_dir: Path | None, settings: Settings) -> tuple[Catalog, Rollouts]:
    """The catalog and the roll-outs of a coordinator, from its folder if it has one."""
    folder = CatalogFolder(state_dir) if state_dir else None
    catalog = Catalog(folder, max_owner=settings.quotas.torrents_per_publisher)
    return catalog, Rollouts(RolloutFolder(state_dir / "rollouts") if state_dir else None, note=log)


class _ReadyCoordinator:
    """Prints the coordinator's addresses once it listens."""

    def __init__(self, token_file: Path | None, *, as_json: bool, quiet: bool) -> None:
        self._token_file = token_file
        self._as_json = as_json
        self._quiet = quiet

    def __call__(self, served: ServedCoordinator, announce: str, held: int, notes: tuple[str, ...]) -> None:
        token_file = str(served.token_file) if served.token_file else None
        if self._as_json:
            plain: dict[str, Any] = {
                "url": served.url,
                "urls": served.urls,
                "announce": announce,
                "catalog": f"{served.url}/catalog",
            }
            echo(json.dumps(plain | {"torrents": held, "publish_token_file": token_file}))
        if self._quiet:
            return
        for note in notes:
            echo(note, err=True)
        if served.failure:
            echo(f"no client publishes here without --publish-token-file ({served.failure})", err=True)
        if token_file:
            echo(f"publishers on this machine use the token in {token_file}", err=True)
        echo(f"{on_each_node(self._token_file)}p2pmodel fetch REPO --coordinator {served.url}", err=True)
        echo(f"coordinator at {', '.join(served.urls)} ({counted(held, 'torrent')}); interrupt to stop", err=True)


async def _run(
    role: CoordinatorRole,
    catalog: Catalog,
    known: AbstractAsyncContextManager[ClientAccess],
    make: Callable[[PublicAddress, ClientAccess], web.Application],
    ready: "_ReadyCoordinator",
    *,
    settings: Settings,
    rollouts: Rollouts,
    signatures: SignatureStore,
    aliases: Aliases,
) -> None:
    notes = (*await catalog.load(), *await rollouts.load(), *await signatures.load(), *await aliases.load())
    address = PublicAddress()
    async with known as clients:
        app = make(address, clients)
        async with serving_coordinator(app, role, address, settings, note=log) as served:
            announce = announce_url(served.url, "")  # without its key: what is printed ends in logs
            ready(served, announce, len(catalog.publications()), notes)
            await asyncio.Event().wait()
