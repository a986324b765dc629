"""The coordinator as one application: tracker, catalog, leases and assembly, every route behind one token.

With a token each path is served below `/<token>`, for torrent clients, which can send nothing else, and for base URLs
that contain it. A bearer header opens the bare paths as well. Without a token the bare paths are open.
`/announce/<token>` is for libtorrent clients with default settings on the coordinator's own machine: their SSRF
mitigation announces to loopback only at paths that begin with `/announce`.
"""

import hmac
import re
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.coordinator.server import tracker as tracker_protocol
from p2pmodel.coordinator.server.assembly_routes import AssemblyRoutes
from p2pmodel.coordinator.server.catalog import Catalog
from p2pmodel.coordinator.server.catalog_routes import CatalogRoutes
from p2pmodel.coordinator.server.lease_routes import LeaseRoutes
from p2pmodel.coordinator.server.publication import MAX_TORRENT
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.sources import Sources
from p2pmodel.errors import AccessDenied, InvalidInput, P2PModelError
from p2pmodel.http.error_responses import error_response, json_http_errors

ORIGIN_BUDGET = 1.05
"""Default number of copies of a snapshot that a swarm may download from mirrors."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,128}")
_ASSEMBLY = "/assemblies/{digest:[0-9a-f]{64}}"
_PARTIAL_TORRENT = _ASSEMBLY + "/{info_hash:[0-9a-f]{64}}.torrent"
_TORRENT = "/catalog/torrents/{info_hash:[0-9a-fA-F]{40,64}}.torrent"


def coordinator_app(
    tracker: Tracker,
    catalog: Catalog,
    *,
    token: str | None = None,
    sources: Sources | None = None,
    origin_budget: float = ORIGIN_BUDGET,
) -> web.Application:
    """The application. `token` as `check_token` returned it; None: every client that can connect may do everything.

    `sources` are the seeders for leaseholders; `origin_budget` is how many copies these may download from mirrors.
    """
    app = web.Application(client_max_size=MAX_TORRENT, middlewares=[json_http_errors])
    seeders = Sources(time.monotonic) if sources is None else sources
    leases = LeaseRoutes(
        catalog,
        seeders,
        is_held=lambda name: tracker.is_held(bytes.fromhex(name)[:20]),
        budget=origin_budget,
        complaints=tracker.complaints,
    )
    routes = CatalogRoutes(catalog, tracker.counts, seeders, leases.origin_bytes, leases.cut_off)
    assemblies = AssemblyRoutes(catalog, budget=origin_budget)
    app.on_shutdown.extend((leases.close, assemblies.close))
    table: list[tuple[str, str, Handler, Callable[[P2PModelError], web.Response]]] = [
        ("GET", "/announce", tracker.handle_announce, tracker_protocol.refusal),
        ("GET", "/scrape", tracker.handle_scrape, tracker_protocol.refusal),
        ("GET", "/catalog", routes.handle_get, error_response),
        ("PUT", "/catalog", routes.handle_put, error_response),
        ("GET", _TORRENT, routes.handle_get_torrent, error_response),
        ("DELETE", _TORRENT, routes.handle_delete, error_response),
        ("GET", "/leases/{info_hash:[0-9a-fA-F]{40,64}}", leases.handle, error_response),
        ("GET", _ASSEMBLY, assemblies.handle, error_response),
        ("DELETE", _ASSEMBLY, assemblies.handle_delete, error_response),
        ("GET", _PARTIAL_TORRENT, assemblies.handle_get_partial_torrent, error_response),
    ]
    if token:
        table += [(method, "/{token}" + path, handler, refuse) for method, path, handler, refuse in table]
        table.append(("GET", "/announce/{token}", tracker.handle_announce, tracker_protocol.refusal))
    for method, path, handler, refuse in table:
        app.router.add_route(method, path, _guarded(handler, refuse, token))
    return app


def check_token(text: str) -> str:
    """Return `text` without surrounding white space if it may stand in a URL's path; raises InvalidInput else."""
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise InvalidInput(
            "the token is not 8 to 128 letters, digits, '-' or '_'", hint="make one with 'openssl rand -hex 16'"
        )
    return token


def _guarded(handler: Handler, refuse: Callable[[P2PModelError], web.Response], token: str | None) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            if token is not None:
                _authorize(request, token)
            return await handler(request)
        except P2PModelError as error:
            return refuse(error)

    return guarded


def _authorize(request: web.Request, token: str) -> None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    given = request.match_info.get("token") or (credentials.strip() if scheme.lower() == "bearer" else "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        raise AccessDenied("this coordinator requires its token", hint="use the URL http://HOST:PORT/TOKEN")
