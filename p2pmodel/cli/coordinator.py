"""`p2pmodel coordinator`: the coordinator role on its own."""

import asyncio
import json
from pathlib import Path

import click
from aiohttp import web

from p2pmodel.cli import options
from p2pmodel.cli.log import log
from p2pmodel.cli.output import echo
from p2pmodel.cli.signals import run_service
from p2pmodel.cli.token_files import read_token
from p2pmodel.config.settings import HttpSettings, Settings
from p2pmodel.coordinator.server.app import ORIGIN_BUDGET, coordinator_app
from p2pmodel.coordinator.server.catalog import Catalog
from p2pmodel.coordinator.server.catalog_folder import CatalogFolder
from p2pmodel.coordinator.server.tracker import INTERVAL, Tracker
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.core.private_files import private_folder
from p2pmodel.http import limits
from p2pmodel.http.access import RequestGuard
from p2pmodel.http.server import check_exposure, serving
from p2pmodel.store.files.space import check_writable

DEFAULT_LISTEN = "127.0.0.1:6969"


@click.command()
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, metavar="ADDRESS:PORT", help="Where to listen.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File with the token that clients must send; the coordinator's URL is then http://ADDRESS:PORT/TOKEN.",
)
@click.option("--insecure-public", is_flag=True, help="Serve other machines without a token.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Keep the catalog here, across restarts.")
@click.option(
    "--interval", type=click.IntRange(5, 3600), default=INTERVAL, show_default=True, help="Seconds between announces."
)
@click.option("--registered-only", is_flag=True, help="Track only torrents of the catalog, not any info-hash.")
@click.option("--full-scrape", is_flag=True, help="Answer a scrape that names no info-hash with all of them.")
@click.option(
    "--origin-budget",
    type=click.FloatRange(min=0),
    default=ORIGIN_BUDGET,
    show_default=True,
    help="Copies of a snapshot that its peers may take from the mirrors together; 0: no limit.",
)
@options.common
def coordinator(
    *,
    settings: Settings,
    listen: str,
    token_file: Path | None,
    insecure_public: bool,
    state_dir: Path | None,
    interval: int,
    registered_only: bool,
    full_scrape: bool,
    origin_budget: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Serve a coordinator: tracker, catalog of torrents, leases and assembly.

    Runs until stopped: exit code 0 after SIGTERM, 130 after SIGINT. Seeders publish into the catalog; peers and other
    programs announce at http://ADDRESS:PORT/announce. With --json one line appears on stdout once it listens.
    """
    address = ListenAddress.parse(listen)
    token = read_token(token_file) if token_file else None
    check_exposure(address, protected=token is not None, insecure_public=insecure_public)
    if state_dir:
        private_folder(state_dir)
        check_writable(state_dir)
    catalog = Catalog(CatalogFolder(state_dir) if state_dir else None)
    if registered_only:
        tracker = Tracker(interval=interval, full_scrape=full_scrape, admits=catalog.admits)
    else:
        tracker = Tracker(interval=interval, full_scrape=full_scrape)
    app = coordinator_app(tracker, catalog, token=token, origin_budget=origin_budget)
    server = _serve(address, token, app, catalog, settings.http, as_json=as_json, quiet=quiet)
    run_service(server, interrupted="the coordinator was stopped")


async def _serve(
    address: ListenAddress,
    token: str | None,
    app: web.Application,
    catalog: Catalog,
    http: HttpSettings,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    notes = await catalog.load()
    guard, bounds = RequestGuard.of(http, secured=token is not None), limits.connections(http)
    async with serving(app, address.host, address.port, guard=guard, limits=bounds, note=log) as base:
        # The token stays in its file: what is printed here ends up in logs.
        url = f"{base}/<token>" if token else base
        held = len(catalog.publications())
        if as_json:
            plain = {"url": base, "announce": f"{url}/announce", "catalog": f"{url}/catalog", "torrents": held}
            echo(json.dumps(plain))
        if not quiet:
            for note in notes:
                echo(note, err=True)
            echo(f"coordinator at {url} ({held} torrents); interrupt to stop", err=True)
        await asyncio.Event().wait()
