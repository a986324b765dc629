"""The control API of `p2pmodel daemon` below /api/v1, and its OpenAPI document.

Bodies and responses are JSON; errors are `{"code", "message", "hint"}` with the status of the error tree.
"""

from collections.abc import Collection
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, TypeAdapter, ValidationError

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.progress.diagnosis import Diagnosis
from p2pmodel.core.progress.progress import FileProgress
from p2pmodel.core.progress.views import (
    CatalogView,
    FirstPiecesView,
    FollowView,
    LimitsView,
    NodeView,
    PiecesView,
    Readiness,
    RemovedSnapshot,
    RolloutSummary,
    ScrubView,
    SnapshotView,
    SwarmView,
    TransferView,
)
from p2pmodel.errors import (
    AccessDenied,
    Conflict,
    Forbidden,
    InvalidInput,
    LocalResource,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from p2pmodel.http import limits
from p2pmodel.http.admission.access import ServerToken, check_bearer
from p2pmodel.http.admission.authorization import Gate, authorization
from p2pmodel.http.admission.forwarded import public_base
from p2pmodel.http.error_responses import error_middleware, error_response, json_http_errors
from p2pmodel.http.event_streams import EventStreams
from p2pmodel.http.openapi import Route, document
from p2pmodel.origin.mirrors.mirror import MirrorStatus
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.bodies import ChangeBody, EngineBody, FirstBody, LimitsBody, StartBody

MAX_BODY = 24 << 20
"""Bound on a request body in bytes: the largest .torrent in base64."""

_EVERY_ROUTE = (InvalidInput, AccessDenied, Forbidden, TooManyRequests, LocalResource)

B = TypeVar("B", bound=BaseModel)


def control_app(
    api: NodeApi,
    token: str | ServerToken | None = None,
    *,
    gate: Gate | None = None,
    read_only: bool = False,
    public: Collection[str] = (),
    http: HttpSettings = limits.UNPACED,
) -> web.Application:
    """The application. `token`: what clients must send (None: nothing); `gate` decides instead, where it is given.
    `http`: the request limits.

    `read_only` leaves out every route that changes state. Paths in `public` need no token.
    """
    handlers = _ControlHandlers(api)
    routes = [route for route in table(handlers) if not (read_only and route.mutates)]
    checks = [*limits.rate(http), *_access_check(gate, token, public), limits.body(http.body_timeout)]
    errors = [json_http_errors, error_middleware(error_response)]
    app = web.Application(client_max_size=MAX_BODY, middlewares=[*errors, *checks])
    for route in routes:
        app.router.add_route(route.method, route.path, route.handler, name=route.name)
    app.on_shutdown.append(handlers.close)
    handlers.document = document(routes, title="p2pmodel node", errors=_EVERY_ROUTE, secured=token is not None)
    return app


def table(on: "_ControlHandlers") -> list[Route]:
    """The routes of all operations."""
    return [*_node_routes(on), *_transfers_routes(on), *_transfer_routes(on), *_cache_routes(on), *_network_routes(on)]


def _node_routes(on: "_ControlHandlers") -> list[Route]:
    return [
        Route("GET", "/api/v1/openapi.json", on.openapi, "This document", dict[str, Any]),
        Route("GET", "/api/v1/node", on.node, "Version, cache and addresses of the node", NodeView),
        Route("GET", "/api/v1/limits", on.limits, "Rate limits for peers", LimitsView),
        Route(
            *("PUT", "/api/v1/limits", on.limit, "Set the rate limits until the node restarts", LimitsView),
            body=LimitsBody,
        ),
    ]


def _transfers_routes(on: "_ControlHandlers") -> list[Route]:
    path, many = "/api/v1/transfers", tuple[TransferView, ...]
    return [
        Route("GET", path, on.transfers, "All transfers, oldest first", many),
        Route(
            *("POST", path, on.start, "Download a snapshot and seed it", TransferView),
            body=StartBody,
            errors=(NotFound, Unavailable),
        ),
        Route(
            *("GET", "/api/v1/events", on.watch_all, "Stream of all transfers at each change", TransferView),
            errors=(Unavailable,),
            events=True,
        ),
        Route("GET", "/api/v1/peers", on.peers, "Number of peers and busiest peers by transfer", tuple[SwarmView, ...]),
    ]


def _transfer_routes(on: "_ControlHandlers") -> list[Route]:
    one, not_found = "/api/v1/transfers/{id}", (NotFound,)
    peers = "Peer connections of a transfer, busiest first"
    return [
        Route("GET", one, on.transfer, "One transfer", TransferView, errors=not_found),
        Route(
            *("PATCH", one, on.change, "Change the priority of a transfer", TransferView),
            body=ChangeBody,
            errors=not_found,
        ),
        Route(
            *("DELETE", one, on.remove, "Remove a transfer, and its snapshot from the cache", RemovedSnapshot),
            errors=not_found,
        ),
        Route(
            *("POST", f"{one}/pause", on.pause, "Stop downloading and seeding a transfer", TransferView),
            errors=not_found,
        ),
        Route("POST", f"{one}/resume", on.resume, "Resume a transfer", TransferView, errors=not_found),
        Route(
            *("POST", f"{one}/cancel", on.cancel, "Remove a transfer, but not its files", TransferView),
            errors=not_found,
        ),
        Route(
            *("PUT", f"{one}/engine", on.engine, "Report whether an inference engine serves the model", TransferView),
            body=EngineBody,
            errors=(NotFound, Conflict),
        ),
        Route(
            *("POST", f"{one}/first", on.first, "Request places of its files before all others", FirstPiecesView),
            body=FirstBody,
            errors=not_found,
        ),
        Route(
            *("GET", f"{one}/events", on.watch, "Stream of a transfer at each change until it is gone", TransferView),
            errors=(NotFound, Unavailable),
            events=True,
        ),
        Route(
            *("GET", f"{one}/why", on.why, "Limiting factor of the rate of a transfer, with advice", Diagnosis),
            errors=not_found,
        ),
        Route("GET", f"{one}/pieces", on.pieces, "State of each piece of a transfer", PiecesView, errors=not_found),
        Route("GET", f"{one}/files", on.files, "Files of a transfer", tuple[FileProgress, ...], errors=not_found),
        Route("GET", f"{one}/peers", on.connections, peers, tuple[PeerConnection, ...], errors=not_found),
    ]


def _cache_routes(on: "_ControlHandlers") -> list[Route]:
    path = "/api/v1/snapshots"
    return [
        Route("GET", path, on.snapshots, "Snapshots in the cache", tuple[SnapshotView, ...]),
        Route(
            *("DELETE", path, on.remove_snapshot, "Remove REPO@REV from the cache", RemovedSnapshot),
            query=("ref",),
            errors=(NotFound,),
        ),
        Route(
            *("GET", "/api/v1/ready", on.ready, "Whether the files of REPO@REV are complete and verified", Readiness),
            query=("model",),
        ),
        Route("GET", "/api/v1/follow", on.follow_lists, "Follow lists, and what they led to", tuple[FollowView, ...]),
        Route("GET", "/api/v1/scrub", on.scrub, "Background check of the cache", ScrubView),
    ]


def _network_routes(on: "_ControlHandlers") -> list[Route]:
    mirrors = "Mirrors in the order of use, then those that only torrents name"
    catalog = "Swarms in the catalogs of the coordinators"
    return [
        Route("GET", "/api/v1/mirrors", on.mirrors, mirrors, tuple[MirrorStatus, ...]),
        Route("GET", "/api/v1/catalog", on.catalog, catalog, tuple[CatalogView, ...]),
        Route("GET", "/api/v1/rollouts", on.rollouts, "Roll-outs of the coordinators", tuple[RolloutSummary, ...]),
    ]


class _ControlHandlers:
    """The handlers: each reads its request, calls the NodeApi, and returns the response."""

    def __init__(self, api: NodeApi) -> None:
        self._api = api
        self._streams = EventStreams(api.version)
        self.document: dict[str, Any] = {}

    async def close(self, _app: web.Application) -> None:
        await self._streams.close()

    async def openapi(self, request: web.Request) -> web.Response:
        return web.json_response(self.document | {"servers": [{"url": public_base(request)}]})

    async def node(self, _request: web.Request) -> web.Response:
        return _answer(self._api.node())

    async def transfers(self, _request: web.Request) -> web.Response:
        await self._api.look()
        return _answer(self._api.transfers())

    async def start(self, request: web.Request) -> web.Response:
        return _answer(await self._api.start(await _body(request, StartBody)))

    async def transfer(self, request: web.Request) -> web.Response:
        await self._api.look()
        return _answer(self._api.transfer(request.match_info["id"]))

    async def change(self, request: web.Request) -> web.Response:
        return _answer(await self._api.change(request.match_info["id"], await _body(request, ChangeBody)))

    async def remove(self, request: web.Request) -> web.Response:
        return _answer(await self._api.remove(request.match_info["id"]))

    async def pause(self, request: web.Request) -> web.Response:
        return _answer(await self._api.pause(request.match_info["id"]))

    async def resume(self, request: web.Request) -> web.Response:
        return _answer(await self._api.resume(request.match_info["id"]))

    async def cancel(self, request: web.Request) -> web.Response:
        return _answer(await self._api.cancel(request.match_info["id"]))

    async def engine(self, request: web.Request) -> web.Response:
        return _answer(self._api.engine(request.match_info["id"], await _body(request, EngineBody)))

    async def first(self, request: web.Request) -> web.Response:
        return _answer(self._api.first(request.match_info["id"], await _body(request, FirstBody)))

    async def why(self, request: web.Request) -> web.Response:
        return _answer(await self._api.why(request.match_info["id"]))

    async def pieces(self, request: web.Request) -> web.Response:
        return _answer(self._api.pieces(request.match_info["id"]))

    async def files(self, request: web.Request) -> web.Response:
        return _answer(self._api.files(request.match_info["id"]))

    async def watch(self, request: web.Request) -> web.StreamResponse:
        await self._api.look()
        ident = self._api.transfer(request.match_info["id"]).id
        return await self._streams.serve(request, lambda: self._states(ident), forever=False)

    async def watch_all(self, request: web.Request) -> web.StreamResponse:
        await self._api.look()
        return await self._streams.serve(request, self._states, forever=True)

    async def snapshots(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.snapshots())

    async def remove_snapshot(self, request: web.Request) -> web.Response:
        return _answer(await self._api.remove_snapshot(_query(request, "ref")))

    async def ready(self, request: web.Request) -> web.Response:
        return _answer(await self._api.ready(_query(request, "model")))

    async def peers(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.swarms())

    async def connections(self, request: web.Request) -> web.Response:
        return _answer(await self._api.connections(request.match_info["id"]))

    async def mirrors(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.used_mirrors())

    async def catalog(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.catalog())

    async def rollouts(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.rollouts())

    async def follow_lists(self, _request: web.Request) -> web.Response:
        await self._api.look()
        return _answer(self._api.follow_lists())

    async def scrub(self, _request: web.Request) -> web.Response:
        return _answer(self._api.scrub())

    async def limits(self, _request: web.Request) -> web.Response:
        return _answer(self._api.limits())

    async def limit(self, request: web.Request) -> web.Response:
        return _answer(self._api.limit(await _body(request, LimitsBody)))

    def _states(self, ident: str | None = None) -> dict[str, Any]:
        return {view.id: _plain(view) for view in self._api.transfers() if ident in (None, view.id)}


_ANYTHING = TypeAdapter[Any](Any)


def _plain(value: Any) -> Any:
    return _ANYTHING.dump_python(value, mode="json")


def _answer(value: Any) -> web.Response:
    return web.json_response(_plain(value))


async def _body(request: web.Request, kind: type[B]) -> B:
    # A page of another site can send forms and plain text without a CORS preflight, but not JSON.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where}: {first['msg']}" if where else first["msg"]) from None


def _query(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise InvalidInput(f"the query has no '{name}'")
    return value


def _access_check(gate: Gate | None, token: str | ServerToken | None, public: Collection[str]) -> list[Middleware]:
    if gate is not None:
        return [authorization(gate, lambda request: None if request.path in public else ("operate", None))]
    if token is None:
        return []
    expected = token

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in public:
            check_bearer(request, expected)
        return await handler(request)

    return [check]
