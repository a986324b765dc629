"""The control API: what `p2pmodel daemon` serves below /api/v1, and its OpenAPI document.

Everything is JSON; errors are `{"code", "message", "hint"}` with the status of the error tree.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, TypeAdapter, ValidationError

from p2pmodel.config.settings import HttpSettings
from p2pmodel.core.connections import PeerConnection
from p2pmodel.core.diagnosis import Diagnosis
from p2pmodel.core.views import (
    CatalogView,
    LimitsView,
    NodeView,
    PiecesView,
    RemovedSnapshot,
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
from p2pmodel.http.access import Access
from p2pmodel.http.error_responses import answerable, json_refusals, refusal
from p2pmodel.http.event_streams import EventStreams
from p2pmodel.http.openapi import Route, document
from p2pmodel.origin.mirrors.mirror import MirrorStatus
from p2pmodel.os_errors import translate
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.bodies import ChangeBody, EngineBody, LimitsBody, StartBody

MAX_BODY = 24 << 20
"""Bytes: the largest .torrent, in base64."""

_ANYWHERE = (InvalidInput, AccessDenied, Forbidden, TooManyRequests, LocalResource)

B = TypeVar("B", bound=BaseModel)


def control_app(
    api: NodeApi,
    access: Access | None = None,
    *,
    read_only: bool = False,
    public: Collection[str] = (),
    http: HttpSettings = limits.UNPACED,
) -> web.Application:
    """The application; `access` says who may ask (None: everyone who can connect), `http` how often. `read_only` leaves
    out every route that changes something. Who asks for a path in `public` needs no token."""
    handlers = _ControlHandlers(api)
    routes = [route for route in table(handlers) if not (read_only and route.mutates)]
    checks = [*limits.rate(http), _guard(access, public), limits.body(http.body_timeout)]
    app = web.Application(client_max_size=MAX_BODY, middlewares=[json_refusals, _errors, *checks])
    for route in routes:
        app.router.add_route(route.method, route.path, route.handler, name=route.name)
    app.on_shutdown.append(handlers.close)
    secured = access is not None and access.token is not None
    handlers.document = document(routes, title="p2pmodel node", errors=_ANYWHERE, secured=secured)
    return app


def table(on: "_ControlHandlers") -> list[Route]:
    """Every operation."""
    one = "/api/v1/transfers/{id}"
    many = tuple[TransferView, ...]
    return [
        Route("GET", "/api/v1/openapi.json", on.openapi, "This document", dict[str, Any]),
        Route("GET", "/api/v1/node", on.node, "The node itself", NodeView),
        Route("GET", "/api/v1/transfers", on.transfers, "All transfers, oldest first", many),
        Route(
            *("POST", "/api/v1/transfers", on.start, "Bring a snapshot here and serve it", TransferView),
            body=StartBody,
            errors=(NotFound, Unavailable),
        ),
        Route("GET", one, on.transfer, "One transfer", TransferView, errors=(NotFound,)),
        Route("PATCH", one, on.change, "Change its priority", TransferView, body=ChangeBody, errors=(NotFound,)),
        Route(
            "DELETE",
            one,
            on.remove,
            "Forget it, and remove its snapshot from the cache",
            RemovedSnapshot,
            errors=(NotFound,),
        ),
        Route(
            "POST",
            f"{one}/pause",
            on.pause,
            "Stop it, serving too, until it is resumed",
            TransferView,
            errors=(NotFound,),
        ),
        Route("POST", f"{one}/resume", on.resume, "Go on with it", TransferView, errors=(NotFound,)),
        Route("POST", f"{one}/cancel", on.cancel, "Forget it; its files stay", TransferView, errors=(NotFound,)),
        Route(
            *("PUT", f"{one}/engine", on.engine, "Say whether an inference engine has the model up", TransferView),
            body=EngineBody,
            errors=(NotFound, Conflict),
        ),
        Route(
            *("GET", f"{one}/events", on.watch, "Its state, at each change, until it is gone", TransferView),
            errors=(NotFound, Unavailable),
            events=True,
        ),
        Route(
            *("GET", "/api/v1/events", on.watch_all, "Every transfer's state, at each change", TransferView),
            errors=(Unavailable,),
            events=True,
        ),
        Route("GET", f"{one}/why", on.why, "What bounds it now, and what would help", Diagnosis, errors=(NotFound,)),
        Route("GET", f"{one}/pieces", on.pieces, "Where its pieces are", PiecesView, errors=(NotFound,)),
        Route(
            *("GET", f"{one}/peers", on.connections, "Whom it exchanges bytes with, the busiest first"),
            tuple[PeerConnection, ...],
            errors=(NotFound,),
        ),
        Route("GET", "/api/v1/snapshots", on.snapshots, "What the cache holds", tuple[SnapshotView, ...]),
        Route(
            *("DELETE", "/api/v1/snapshots", on.remove_snapshot, "Remove REPO@REV from the cache", RemovedSnapshot),
            query=("ref",),
            errors=(NotFound,),
        ),
        Route(
            "GET",
            "/api/v1/peers",
            on.peers,
            "The peers of each transfer: how many, and the busiest",
            tuple[SwarmView, ...],
        ),
        Route(
            "GET",
            "/api/v1/mirrors",
            on.mirrors,
            "The mirrors in the order they are asked, then those of torrents",
            tuple[MirrorStatus, ...],
        ),
        Route(
            "GET", "/api/v1/catalog", on.catalog, "The swarms, as the coordinators see them", tuple[CatalogView, ...]
        ),
        Route("GET", "/api/v1/limits", on.limits, "What is exchanged with peers at most", LimitsView),
        Route("PUT", "/api/v1/limits", on.limit, "Change it, until the node starts anew", LimitsView, body=LimitsBody),
    ]


class _ControlHandlers:
    """Each reads its request, asks the facade, and answers."""

    def __init__(self, api: NodeApi) -> None:
        self._api = api
        self._streams = EventStreams(api.version)
        self.document: dict[str, Any] = {}

    async def close(self, _app: web.Application) -> None:
        await self._streams.close()

    async def openapi(self, _request: web.Request) -> web.Response:
        return web.json_response(self.document)

    async def node(self, _request: web.Request) -> web.Response:
        return _answer(self._api.node())

    async def transfers(self, _request: web.Request) -> web.Response:
        return _answer(self._api.transfers())

    async def start(self, request: web.Request) -> web.Response:
        return _answer(await self._api.start(await _body(request, StartBody)))

    async def transfer(self, request: web.Request) -> web.Response:
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

    async def why(self, request: web.Request) -> web.Response:
        return _answer(await self._api.why(request.match_info["id"]))

    async def pieces(self, request: web.Request) -> web.Response:
        return _answer(self._api.pieces(request.match_info["id"]))

    async def watch(self, request: web.Request) -> web.StreamResponse:
        ident = self._api.transfer(request.match_info["id"]).id
        return await self._streams.serve(request, lambda: self._states(ident), forever=False)

    async def watch_all(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve(request, self._states, forever=True)

    async def snapshots(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.snapshots())

    async def remove_snapshot(self, request: web.Request) -> web.Response:
        return _answer(await self._api.remove_snapshot(_query(request, "ref")))

    async def peers(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.swarms())

    async def connections(self, request: web.Request) -> web.Response:
        return _answer(await self._api.connections(request.match_info["id"]))

    async def mirrors(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.asked_mirrors())

    async def catalog(self, _request: web.Request) -> web.Response:
        return _answer(await self._api.catalog())

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
    # A form or plain text is what a page of another site could send without asking the browser's leave.
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


def _guard(access: Access | None, public: Collection[str]) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if access is not None:
            access.check(request.headers, public=request.path in public)
        return await handler(request)

    return guard


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:  # the edge: whatever it is, a client is answered
        if not answerable(request):
            raise
        return refusal(translate(error))
