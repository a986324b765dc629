"""The coordinator as one application: every route, with the rights it requires.

It consists of tracker, catalog, leases, assembly and roll-outs.

Clients send a token as `Authorization: Bearer`. Torrent clients, which can send nothing but a URL, announce at
`/announce/<key>` with an announce key (`coordinator/tokens`). The path begins with `/announce` because libtorrent
clients with default settings announce to loopback only at such paths.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.config.sections.coordinator import PrivateSettings, QuotaSettings
from p2pmodel.coordinator.server import tracker as tracker_protocol
from p2pmodel.coordinator.server.access import CoordinatorAccess, RepositoryOf
from p2pmodel.coordinator.server.assembly_routes import DEFAULT_QUOTAS, AssemblyRoutes
from p2pmodel.coordinator.server.catalog.aliases import Aliases
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.catalog_routes import AliasRoutes, CatalogRoutes
from p2pmodel.coordinator.server.catalog.publication import MAX_TORRENT
from p2pmodel.coordinator.server.catalog.signatures import SignatureRoutes, SignatureStore
from p2pmodel.coordinator.server.credentials import CALLER, NO_TOKENS, Caller, Credentials, Rights
from p2pmodel.coordinator.server.lease_routes import LeaseRoutes, always_reached
from p2pmodel.coordinator.server.metrics import CoordinatorMetrics
from p2pmodel.coordinator.server.private_swarms import PrivateSwarms
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.rollouts.routes import RolloutRoutes
from p2pmodel.coordinator.server.source_watch import SourceWatch
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tokens import announce_url
from p2pmodel.coordinator.tracker import codec
from p2pmodel.coordinator.tracker.announce_texts import UNTRUSTED_PROXY
from p2pmodel.coordinator.tracker.sources import Sources
from p2pmodel.errors import AccessDenied, P2PModelError, UpgradeRequired
from p2pmodel.http.admission.peer_identity import has_certificate
from p2pmodel.http.error_responses import FAILURES, error_middleware, error_response, json_http_errors, outward
from p2pmodel.http.exposition import HEALTH, METRICS, Traffic, handle_health, metrics_handler
from p2pmodel.trust.access.authoriser import NO_CLIENTS, ClientAccess
from p2pmodel.trust.access.policy import Verb

_Row = tuple[str, str, Handler, Rights]
ORIGIN_BUDGET = 1.05
"""Default number of copies of a snapshot that a swarm may download from mirrors."""

_PRIVATE = "/private/{info_hash:[0-9a-fA-F]{64}}"
_ASSEMBLY = "/assemblies/{digest:[0-9a-f]{64}}"
_PARTIAL_TORRENT = _ASSEMBLY + "/{info_hash:[0-9a-f]{64}}.torrent"


@dataclass(slots=True)
class PublicAddress:
    """The base URL at which peers reach a coordinator; "" until it is known. Never taken from a request."""

    url: str = ""


def coordinator_app(
    tracker: Tracker,
    catalog: Catalog,
    *,
    credentials: Credentials = NO_TOKENS,
    sources: Sources | None = None,
    origin_budget: float = ORIGIN_BUDGET,
    address: PublicAddress | None = None,
    quotas: QuotaSettings = DEFAULT_QUOTAS,
    rollouts: Rollouts | None = None,
    signatures: SignatureStore | None = None,
    certificates: bool = False,
    private: PrivateSwarms | None = None,
    clients: ClientAccess = NO_CLIENTS,
    aliases: Aliases | None = None,
) -> web.Application:
    """The application. Without `credentials` reading is open, and no client publishes.

    `sources` are the seeders for leaseholders; `origin_budget` is how many copies these may download from mirrors;
    `address` is for the tracker URL of assembled torrents. `quotas` does not bound the catalog, which has its own.
    `rollouts`, `signatures` and `aliases` are loaded already; without them they are in memory alone. `certificates`:
    every request but announces and scrapes with a key needs a client certificate. `private`: its private swarms;
    without them it has none. `clients`: what is known of clients besides the `credentials`, and recorded of them.
    """
    app = web.Application(client_max_size=MAX_TORRENT, middlewares=[json_http_errors, error_middleware(error_response)])
    seeders = Sources(time.monotonic, max_address=quotas.sources_per_address) if sources is None else sources
    rollouts = Rollouts() if rollouts is None else rollouts
    private = PrivateSwarms(catalog, PrivateSettings()) if private is None else private
    access = CoordinatorAccess(credentials, clients, certificates=certificates)
    private.admit_by(access)
    leases = _lease_routes(
        tracker, catalog, seeders, rollouts, private, access=access, budget=origin_budget, quotas=quotas
    )
    assemblies = AssemblyRoutes(
        catalog,
        budget=origin_budget,
        trackers=partial(_trackers, address or PublicAddress(), credentials),
        quotas=quotas,
        rollouts=rollouts,
        is_private=private.covers,
        access=access,
    )
    signing = SignatureRoutes(SignatureStore() if signatures is None else signatures)
    watch = SourceWatch(seeders, tracker)
    known = (tracker.counts, watch, leases.origin_bytes, leases.cut_off, private, tracker.unreachable)
    naming = AliasRoutes(Aliases(catalog) if aliases is None else aliases, access)
    routes = CatalogRoutes(catalog, *known, access, naming.aliases, signing.store.signed_by, leases.expected.given)
    rolling = RolloutRoutes(rollouts)
    metrics = CoordinatorMetrics(tracker, catalog, rollouts, traffic := Traffic())
    app.cleanup_ctx.extend((rolling.run, private.run))
    app.on_shutdown.extend((leases.close, assemblies.close, rolling.close, private.close))
    rows = _rows(leases, assemblies, metrics)
    table = [*routes.table(), *naming.table(), *signing.table(), *rolling.table(), *rows]
    app.router.add_route("GET", _PRIVATE, _authorized(private.handle, access, Rights.MEMBER, None, private.refused))
    repo_of: RepositoryOf = lambda each: catalog.repo_of(each) or assemblies.repo_of(each)  # noqa: E731
    tracker.list_by(private.lists, lambda each: private.tracks(repo_of(each)))
    _add_routes(app, access, table, tracker, repo_of)
    return traffic.watch(app, "coordinator")


def _rows(leases: LeaseRoutes, assemblies: AssemblyRoutes, metrics: CoordinatorMetrics) -> list[_Row]:
    return [
        ("GET", "/leases/{info_hash:[0-9a-fA-F]{40,64}}", leases.handle, Rights.NONE),
        ("GET", _ASSEMBLY, assemblies.handle, Rights.MEMBER),
        ("DELETE", _ASSEMBLY, assemblies.handle_delete, Rights.MEMBER),
        ("GET", _PARTIAL_TORRENT, assemblies.handle_get_partial_torrent, Rights.NONE),
        ("GET", METRICS, metrics_handler(metrics.collect), Rights.NONE),
    ]


def _lease_routes(
    tracker: Tracker,
    catalog: Catalog,
    seeders: Sources,
    rollouts: Rollouts,
    private: PrivateSwarms,
    *,
    access: CoordinatorAccess,
    budget: float,
    quotas: QuotaSettings,
) -> LeaseRoutes:
    return LeaseRoutes(
        catalog,
        seeders,
        access=access,
        follow_sources=SourceWatch(seeders, tracker).follow,
        probe=tracker.probes.failure if tracker.probes else always_reached,
        rollouts=rollouts,
        is_held=lambda name: tracker.is_held(bytes.fromhex(name)[:20]),
        budget=budget,
        complaints=tracker.complaints,
        messages_per_second=quotas.messages_per_second,
        check=private.check,
    )


def _add_routes(
    app: web.Application, access: CoordinatorAccess, table: Sequence[_Row], tracker: Tracker, repo_of: RepositoryOf
) -> None:
    for method, path, handler, least in table:
        verb = Verb.OPERATE if path == METRICS else None
        app.router.add_route(method, path, _authorized(handler, access, least, verb))
    for path, handler in (("/announce", tracker.handle_announce), ("/scrape", tracker.handle_scrape)):
        app.router.add_route("GET", path, _tracking(handler, access, repo_of))
        app.router.add_route("GET", path + "/{key}", _tracking(handler, access, repo_of))
    app.router.add_get(HEALTH, handle_health)


def _trackers(address: PublicAddress, credentials: Credentials) -> list[str]:
    return [announce_url(address.url, credentials.member or "")] if address.url else []


def _authorized(
    handler: Handler,
    access: CoordinatorAccess,
    least: Rights,
    verb: Verb | None,
    on_refused: Callable[[web.Request], None] = lambda _request: None,
) -> Handler:
    async def authorized(request: web.Request) -> web.StreamResponse:
        try:
            _check_certificate(request, access.certificates)
            request[CALLER] = await access.caller(request, least, verb)
            return await handler(request)
        except P2PModelError as error:
            if isinstance(error, AccessDenied):
                on_refused(request)
            _log_proxy(request, error)
            return error_response(outward(request, error))

    return authorized


def _tracking(handler: Handler, access: CoordinatorAccess, repo_of: RepositoryOf) -> Handler:
    """Announces and scrapes: with an announce key in the path, or with a token in the header."""

    async def tracking(request: web.Request) -> web.StreamResponse:
        try:
            if "key" not in request.match_info:  # BitTorrent clients present no certificate
                _check_certificate(request, access.certificates)
            caller = await access.announcer(request)
            if caller.policy.has_rules:
                _check_swarms(request, caller, repo_of)
            request[tracker_protocol.MEMBER] = access.credentials.member is not None or caller.rights > Rights.NONE
            return await handler(request)
        except P2PModelError as error:
            _log_proxy(request, error)
            return tracker_protocol.refusal(outward(request, error))

    return tracking


def _check_certificate(request: web.Request, required: bool) -> None:
    if required and not has_certificate(request):
        raise AccessDenied(
            "this coordinator requires a client certificate",
            hint="set coordinator_certificate and coordinator_key",
        )


def _log_proxy(request: web.Request, error: P2PModelError) -> None:
    """Log an error that the operator of a proxy in front of this coordinator can mend."""
    log = request.config_dict.get(FAILURES)
    if log is not None and (isinstance(error, UpgradeRequired) or UNTRUSTED_PROXY in error.what):
        log.add(error)


def _check_swarms(request: web.Request, caller: Caller, repo_of: RepositoryOf) -> None:
    """Raise unless the caller may read the repositories of the swarms that an announce or a scrape names."""
    query = request.rel_url.raw_query_string
    if request.path.startswith("/scrape"):
        named = codec.parse_scrape(query)
    else:
        named = (codec.parse_announce(query).announce.info_hash,)
    for info_hash in named:
        caller.check(Verb.READ, repo_of(info_hash))
    if not named:
        caller.check(Verb.OPERATE, None)
