"""`p2pmodel mirror serve`: serve the cache as a Hugging Face endpoint, optionally as a pull-through mirror."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from aiohttp import web

from p2pmodel.cli import options
from p2pmodel.cli.mirror.export import export
from p2pmodel.cli.mirror.sync import log as mirror_log
from p2pmodel.cli.mirror.sync import sync
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.secret_files import SHORTEST_TOKEN, mirror_token, tls_context
from p2pmodel.cli.signals import run_service
from p2pmodel.cli.terminal.log import log as log_note
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.pace import Pace
from p2pmodel.core.tasks import companions
from p2pmodel.errors import InvalidInput
from p2pmodel.http import limits
from p2pmodel.http.access_log import AccessLog
from p2pmodel.http.admission.access import RequestGuard, ServerToken, is_bearer
from p2pmodel.http.exposition import Traffic
from p2pmodel.http.server import check_exposure, serving
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.client_rights import ClientRights
from p2pmodel.node.hub.manifest_source import ManifestSource
from p2pmodel.node.hub.pull_through import PullThrough
from p2pmodel.node.reporter import NoteReporter, Reporter
from p2pmodel.node.snapshot.evidence.held_snapshots import HeldSnapshots
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.endpoint_access import EndpointAccess, HubAdmission
from p2pmodel.service.metric_families import EndpointMetrics
from p2pmodel.service.roles.client_access import authoriser_of, clients_of
from p2pmodel.service.roles.own_address import reachable_urls
from p2pmodel.service.roles.reload import SCRUB, Reload
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.space import check_readable, check_writable
from p2pmodel.store.scrub import Scrubber
from p2pmodel.store.state.sync_log import SyncLog
from p2pmodel.trust.access.authoriser import Authoriser, ServerGate
from p2pmodel.trust.content_policy import ContentPolicy

DEFAULT_LISTEN = "127.0.0.1:8090"


@click.group()
def mirror() -> None:
    """Serve snapshots of the local Hugging Face cache over HTTP, and keep them up to date."""


mirror.add_command(export)
mirror.add_command(sync)
mirror.add_command(mirror_log, "log")


@mirror.command()
@click.option(
    "--listen", default=DEFAULT_LISTEN, show_default=True, metavar="ADDRESS:PORT", help="Address to listen on."
)
@click.option("--token-file", type=PathName(), help="File with the token that clients must send.")
@click.option("--token-env", metavar="NAME", help="Environment variable with the token that clients must send.")
@click.option("--insecure-public", is_flag=True, help="Serve other machines without a token.")
@click.option(
    "--access-log",
    "log_path",
    type=PathName(),
    help="Append one JSON line for each request to this file.",
)
@click.option(
    "--max-bytes-per-second",
    callback=options.size,
    metavar="SIZE",
    help="Limit of file content sent to all clients together, bytes/s or as in 20MB; 0: no limit.",
)
@click.option(
    "--metadata-ttl",
    callback=options.duration,
    metavar="TIME",
    default="72h",
    show_default=True,
    help="With --upstream: time for which the commit of a branch is cached.",
)
@click.option(
    "--max-cache-bytes",
    callback=options.size,
    metavar="SIZE",
    help="With --upstream: bound on the cache; the least recently served snapshots are evicted.",
)
@click.option(
    "--accel",
    metavar="PREFIX",
    help="Behind nginx only: send blobs by X-Accel-Redirect to PREFIX (see scripts/deploy/nginx.conf).",
)
@options.advertise
@options.sync_log
@options.admission
@options.upstream
@options.tls
@options.local_users
@options.endpoint_url
@options.common
def serve(*, settings: Settings, listen: str, **flags: Any) -> None:
    """Serve every snapshot of the cache to clients that set HF_ENDPOINT, to web seed clients and to p2pmodel.

    Runs until stopped: exit code 0 after SIGTERM, 130 after SIGINT. With --json the line {"endpoint": URL, "listen":
    URL} appears on stdout once it listens; otherwise the URL is printed on stderr. New snapshots are served without a
    restart.

    With --upstream it is a pull-through mirror: it downloads missing files from upstream, each file once, and serves
    them while they download. A client reads what the rules of the settings allow, else public models, and private and
    gated ones that its own hub token opens.
    """
    address = ListenAddress.parse(listen)
    reload = options.reload(settings)
    token = _token(flags["token_file"], flags["token_env"], reload)
    tls = tls_context(settings.http, reload)
    authoriser = authoriser_of(settings, reload)
    certified = tls is not None and settings.http.asks_for_certificates
    protected = token is not None or certified or authoriser.protects
    check_exposure(address, protected=protected, insecure_public=flags["insecure_public"])
    check_readable(settings.cache_dir)
    pace = _pace(flags["max_bytes_per_second"], accel=flags["accel"])
    cache = HubCache(settings.cache_dir, settings.state_dir, policy=ContentPolicy(settings.contents.rules))
    sync_log = options.sync_log_path(settings, flags["sync_log"])
    upstream = _pull_through(cache, settings, address, SyncLog(sync_log), flags)
    log = AccessLog(flags["log_path"]) if flags["log_path"] else None
    with closing(log) if log else nullcontext():
        held = HeldSnapshots(cache, settings, log_note)
        reload.work("signatures", held.look)
        endpoint = _MirrorEndpoint(
            cache, settings, address, authoriser, token, upstream, access_log=log, pace=pace, sync_log=sync_log,
            accel=flags["accel"],
            tls=tls,
            held=held,
        )  # fmt: skip
        announce = "" if flags["quiet"] else f"serving {settings.cache_dir}"
        scrubber = _scrubber(cache, settings)
        reload.setting(*SCRUB, apply=lambda now: scrubber.change(now.store))
        work = _serve(endpoint, scrubber, announce, as_json=flags["as_json"])
        run_service(work, interrupted="the mirror was stopped", reload=reload)


def _token(file: Path | None, env: str | None, reload: Reload) -> ServerToken | None:
    value = mirror_token(file, env, shortest=SHORTEST_TOKEN)
    if value is None:
        return None
    token = ServerToken(value)

    def again() -> None:
        token.replace(mirror_token(file, env, shortest=SHORTEST_TOKEN) or token.value)

    reload.file("token", again)
    return token


def _pace(rate: int | None, *, accel: str | None) -> Pace | None:
    if accel and rate:
        raise InvalidInput("with --accel nginx sends the files", hint="use its limit_rate, not --max-bytes-per-second")
    return Pace(rate) if rate else None


def _pull_through(
    cache: HubCache, settings: Settings, address: ListenAddress, log: SyncLog, flags: dict[str, Any]
) -> PullThrough | None:
    """The downloads from upstream; None without --upstream."""
    max_bytes, rules = flags["max_cache_bytes"], flags["rules"]
    if not flags["upstream"]:
        if max_bytes is not None or rules != Admission():
            raise InvalidInput("--max-cache-bytes, --allow and --deny need --upstream", hint="add --upstream")
        return None
    _check_upstream(settings, address)
    reporter = Reporter() if flags["quiet"] else NoteReporter(_note)
    return PullThrough(
        cache,
        settings,
        reporter,
        metadata_ttl=flags["metadata_ttl"],
        max_bytes=max_bytes,
        rules=rules,
        log=log,
    )


def _scrubber(cache: HubCache, settings: Settings) -> Scrubber:
    assert settings.state_dir is not None
    return Scrubber(cache, settings.store, settings.state_dir / "scrub", note=_note)


@dataclass(frozen=True, slots=True)
class _MirrorEndpoint:
    cache: HubCache
    settings: Settings
    address: ListenAddress
    authoriser: Authoriser
    token: ServerToken | None
    upstream: PullThrough | None
    access_log: AccessLog | None
    pace: Pace | None
    sync_log: Path
    accel: str | None
    tls: ssl.SSLContext | None
    held: HeldSnapshots

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[str, tuple[str, ...]]]:
        """Serve while the context lasts; yields the URL that it listens on, and those by which clients reach it, the
        preferred one first."""
        settings, http, own = self.settings, self.settings.http, self.token
        async with AsyncExitStack() as stack:
            if self.upstream is not None:
                await stack.enter_async_context(self.upstream)
            known = clients_of(settings, f"mirror-{self.address.port}", self.authoriser)
            clients = await stack.enter_async_context(known)
            mirrors = await stack.enter_async_context(ManifestSource(settings, Reporter()))
            rights = ClientRights(mirrors, settings.access.rights_ttl)
            stack.push_async_callback(rights.close)
            gate = ServerGate(
                self.authoriser,
                partial(is_bearer, token=own) if own is not None else None,
                takes_hub_tokens=own is None and mirrors.takes_client_tokens,
                audit=clients.audit,
            )
            access = EndpointAccess(
                HubAdmission(gate, rights), clients.audit, ContentPolicy(settings.contents.rules), self.held
            )
            secured = own is not None or (self.tls is not None and http.asks_for_certificates)
            guard = RequestGuard.of(
                http, secured=secured, forms=True, own_user=not self.authoriser.protects, url=http.public_url
            )
            bounds, host, port = limits.connections(http), self.address.host, self.address.port
            server = serving(self._app(access), host, port, guard=guard, limits=bounds, tls=self.tls, note=log_note)
            bound = await stack.enter_async_context(server)
            public = http.public_url
            yield bound, (public,) if public else await asyncio.to_thread(reachable_urls, bound, settings)

    def _app(self, access: EndpointAccess) -> web.Application:
        traffic, origin = Traffic(), self.upstream.origin if self.upstream is not None else None
        app = hub_endpoint(
            self.cache,
            access_log=self.access_log,
            pace=self.pace,
            upstream=self.upstream,
            sync_log=self.sync_log,
            accel=self.accel,
            http=self.settings.http.unpaced,
            collecting=EndpointMetrics(self.cache, origin, traffic).collect,
            access=access,
        )
        return traffic.watch(app, "hub")


async def _serve(endpoint: _MirrorEndpoint, scrubber: Scrubber, announce: str, *, as_json: bool) -> None:
    async with endpoint.running() as (bound, urls), companions() as start:
        start(scrubber.run())
        start(endpoint.held.run())
        if as_json:
            echo(json.dumps({"endpoint": urls[0], "endpoints": urls, "listen": bound}))
        elif announce:
            echo(f"{announce} at {', '.join(urls)} (set HF_ENDPOINT={urls[0]})", err=True)
        await asyncio.Event().wait()


def _check_upstream(settings: Settings, address: ListenAddress) -> None:
    if settings.offline:
        raise InvalidInput("--upstream needs the network, which HF_HUB_OFFLINE forbids", hint="unset HF_HUB_OFFLINE")
    for each in settings.mirrors:
        if urlsplit(each.endpoint).netloc == str(address):
            raise InvalidInput(
                f"--upstream {each.endpoint} is this mirror itself", hint="give the URL of the hub or mirror behind it"
            )
    check_writable(settings.cache_dir)


def _note(line: str) -> None:
    echo(line, err=True)
