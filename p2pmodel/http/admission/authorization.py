"""Rights of clients at a server: what a request presents, and the right that an injected gate finds for it."""

import asyncio
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.core.network.addresses import is_loopback
from p2pmodel.core.network.rights import RequestCredentials, Right
from p2pmodel.errors import AccessDenied
from p2pmodel.http.admission.access import WRONG_TOKEN
from p2pmodel.http.admission.forwarded import THROUGH_PROXY, is_forwarded
from p2pmodel.http.admission.peer_identity import is_own, tcp_owner, unix_owner

RIGHT = web.RequestKey("RIGHT", Right)
"""Key of an admitted request for the right that admitted it."""


class Gate(Protocol):
    """Decides what the clients of one server may do."""

    async def admit(self, presented: RequestCredentials, verb: str, repo: str | None) -> Right:
        """The right of a client to `read`, `infer`, `publish` or `operate`; `repo` None: no single repository.

        Raises AccessDenied and its kinds, or Unavailable.
        """


class LocalUsers:
    """Whether the client of a request is a process of this process's own user, or of root, on this machine. The kernel
    is asked once for each connection."""

    def __init__(self) -> None:
        self._own: WeakKeyDictionary[asyncio.BaseTransport, bool] = WeakKeyDictionary()

    async def includes(self, request: web.Request) -> bool:
        """Whether it is. A request that was passed on by a proxy counts as one of another machine."""
        transport = request.transport
        if transport is None or request.get(THROUGH_PROXY) or is_forwarded(request):
            return False
        known = self._own.get(transport)
        if known is None:
            self._own[transport] = known = await _is_local(transport)
        return known


async def _is_local(transport: asyncio.BaseTransport) -> bool:
    peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not isinstance(peer, tuple):
        connection = transport.get_extra_info("socket")
        return connection is not None and is_own(unix_owner(connection))
    if not is_loopback(str(peer[0])):
        return False
    return is_own(await asyncio.to_thread(tcp_owner, peer[:2], local[:2]))


async def presented_by(request: web.Request, users: LocalUsers) -> RequestCredentials:
    """What the client of `request` presents."""
    return RequestCredentials(
        request.headers.get("Authorization", ""),
        _certificate_name(request),
        await users.includes(request),
        request.remote or "",
    )


async def admitted(request: web.Request, gate: Gate, users: LocalUsers, verb: str, repo: str | None) -> Right:
    """The right of `request`, which is also kept in it. A wrong token is marked for the throttle. Raises as `Gate`."""
    try:
        right = await gate.admit(await presented_by(request, users), verb, repo)
    except AccessDenied as error:
        request[WRONG_TOKEN] = error.code == "unknown_credential"
        raise
    request[RIGHT] = right
    return right


Asked = Callable[[web.Request], tuple[str, str | None] | None]
"""The verb of a request and its repository; None for one that needs no right."""


def authorization(gate: Gate, asked: Asked) -> Middleware:
    """The middleware that lets only requests with a right pass. It belongs inside the one that answers errors."""
    users = LocalUsers()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = asked(request)
        if wanted is not None:
            await admitted(request, gate, users, *wanted)
        return await handler(request)

    return check


def _certificate_name(request: web.Request) -> str:
    """The name in the client's certificate, which TLS has verified: the common name, else the first DNS name."""
    certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
    if not certificate:
        return ""
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return next((str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"), "")
