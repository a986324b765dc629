"""Requests that a node's hub endpoint relays to its mirrors: the hub's other GETs, and repositories that only a
client's own token opens.

Invariants, to re-check when editing:
1. A client's token goes with its own request, to mirrors that accept such tokens, and nowhere else.
2. The node's tokens go with requests about repositories, never with requests about the user, and only for clients that
   have a right to what they open (`RIGHT`).
3. A model that only a client's token opens is served to this client alone, and is recorded (`TokenScope`) before its
   first byte is sent.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.core.content.names import RepoId
from p2pmodel.core.network.rights import OPEN, Right
from p2pmodel.errors import AccessDenied, InvalidInput, NotFound, NotYet, P2PModelError, RepoNotFound
from p2pmodel.http.access_log import SENT
from p2pmodel.http.admission.authorization import RIGHT
from p2pmodel.http.admission.forwarded import public_base
from p2pmodel.http.file_response import STALL, RangeNotSatisfiable, parse_range
from p2pmodel.node.hub.token_scope import TokenScope
from p2pmodel.origin.relay.answer import RelayAnswer
from p2pmodel.origin.relay.request import OTHER_KINDS, HubPath, RelayRequest
from p2pmodel.service.hub.endpoint_access import EndpointAccess, repo_of

SHORT = 1 << 20
"""Longest range, in bytes, for which a client waits."""

_POLL = 0.2
_ANY_SIZE = 1 << 62


async def with_patience(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer of `handler`; for a short range, repeat until it is ready or the client is gone.

    A client of a short range reads the header of a weight file, for example, and gives up after "try again". A client
    of the whole file tries again.
    """
    while True:
        try:
            return await handler(request)
        except NotYet:
            if not _short(request) or request.transport is None or request.transport.is_closing():
                raise
        await asyncio.sleep(_POLL)


def _short(request: web.Request) -> bool:
    try:
        part = parse_range(request.headers.get("Range"), _ANY_SIZE)
    except RangeNotSatisfiable:
        return False
    return request.method == "GET" and part is not None and part.length <= SHORT


_REQUEST_HEADERS = ("Accept", "Range", "If-Range", "If-None-Match", "Content-Type")
_KIND = "|".join(OTHER_KINDS)
_CHUNKS, _NO_CHUNKS = b'"xetHash"', b'"noChunk"'
"""A client that finds the first in a listing goes to the hub's chunk store, past every mirror."""


class RelayClient(Protocol):
    """Sends requests to mirrors: see `ManifestSource`."""

    @property
    def takes_client_tokens(self) -> bool: ...

    def relay(self, request: RelayRequest) -> AbstractAsyncContextManager[RelayAnswer]: ...


class MirrorRelay:
    """Routes that are relayed, and the middleware for the model routes."""

    def __init__(self, mirrors: RelayClient, scope: TokenScope, access: EndpointAccess) -> None:
        self._access = access
        self._mirrors = mirrors
        self._scope = scope

    def routes(self) -> list[web.RouteDef]:
        """GET, HEAD, and the one POST that changes nothing."""
        return [
            web.post(f"/api/{{kind:{_KIND}}}/{{name:.+}}/paths-info/{{rest:.+}}", self._other),
            web.get("/api/{rest:.*}", self._other),
            web.get(f"/{{kind:{_KIND}}}/{{rest:.+}}", self._other),
            web.get("/{name:[^/]+(?:/[^/]+)?}/raw/{rest:.+}", self._other),
        ]

    @web.middleware
    async def models(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a client's own token open the models that the node's tokens do not."""
        repo = _model(request)
        if repo is None:
            return await handler(request)
        if await self._scope.withholds(repo):
            return await self._relayed(request, own=False)
        try:
            return await with_patience(request, handler)
        except (AccessDenied, RepoNotFound) as error:
            if _token(request) is None or not self._mirrors.takes_client_tokens:
                raise
            refused = error
        try:
            return await self._relayed(request, own=False, of=repo)
        except (AccessDenied, NotFound):
            raise refused from None

    async def _other(self, request: web.Request) -> web.StreamResponse:
        # What the node's own tokens open is for those that have a right to it here.
        return await self._relayed(request, own=not request.get(RIGHT, OPEN).ask_mirror)

    async def _relayed(self, request: web.Request, *, own: bool, of: RepoId | None = None) -> web.StreamResponse:
        path = HubPath(request.rel_url.raw_path)
        self._access.check_relayed(request, path)
        query = request.rel_url.raw_query_string
        relayed_request = RelayRequest(
            request.method,
            path,
            f"?{query}" if query else "",
            {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers},
            await request.read() if request.method == "POST" else None,
            own=own and path.is_content,
            token=_token(request),
        )
        async with self._mirrors.relay(relayed_request) as relayed:
            if of is not None and relayed.by_client:
                await self._scope.withhold(of)
            response = web.StreamResponse(status=relayed.status, headers=_headers(request, relayed))
            response.content_length = relayed.length
            await _send(request, response, relayed, listing=not path.is_file)
            return response


def _token(request: web.Request) -> str | None:
    """The client's own token."""
    right: Right = request.get(RIGHT, OPEN)
    return right.token


def _model(request: web.Request) -> RepoId | None:
    try:
        return RepoId(repo_of(request))
    except (KeyError, InvalidInput):
        return None


def _headers(request: web.Request, relayed: RelayAnswer) -> dict[str, str]:
    headers = dict(relayed.headers)
    if relayed.following is not None:
        headers["Link"] = f'<{public_base(request)}{relayed.following}>; rel="next"'
    return headers


async def _send(request: web.Request, response: web.StreamResponse, relayed: RelayAnswer, *, listing: bool) -> None:
    request[SENT] = 0
    try:
        await response.prepare(request)
        if request.method == "HEAD":
            return
        async with aclosing(relayed.body()) as body:
            async for block in _without_chunks(body) if listing else body:
                async with asyncio.timeout(request.config_dict[STALL]):
                    await response.write(block)
                request[SENT] += len(block)
    except (ConnectionError, TimeoutError, P2PModelError):
        # The status is sent already. After an orderly close clients request the rest.
        if request.transport is not None:
            request.transport.close()


async def _without_chunks(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same body, of equal length, without references to the hub's chunk store."""
    held = b""
    async for block in body:
        data = (held + block).replace(_CHUNKS, _NO_CHUNKS)
        cut = max(0, len(data) - len(_CHUNKS) + 1)
        held = data[cut:]
        yield data[:cut]
    yield held
