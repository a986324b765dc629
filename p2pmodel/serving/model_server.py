"""One run of `p2pmodel serve`: the endpoint listens at once, the model is fetched and loaded, then it answers."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.tasks import companions
from p2pmodel.http import limits
from p2pmodel.http.admission.access import RequestGuard, ServerToken
from p2pmodel.http.exposition import Traffic
from p2pmodel.http.server import serving
from p2pmodel.serving.admission import ServingAdmission
from p2pmodel.serving.answers import ChatModel
from p2pmodel.serving.endpoint import PUBLIC, ChatEndpoint, ServedModel, endpoint_app
from p2pmodel.serving.startup import Startup
from p2pmodel.trust.access.authoriser import NO_CLIENTS, ClientAccess

GRACE = 1.0
"""Seconds for running answers when the server stops."""


class ModelSource(Protocol):
    """Brings the model onto the device, and reports it where the snapshot is reported."""

    async def bring(self, startup: Startup) -> ChatModel:
        """Fetch and load the model; every file is verified before it returns. `startup` is told how far it has come."""

    async def first_answer(self) -> None:
        """The first token of the first answer is there."""

    async def stay(self) -> None:
        """Report the model while it answers, until cancelled; at the end it is reported as gone."""


@dataclass(frozen=True, slots=True)
class ServingRole:
    """Where and for which clients the model is served. `most_waiting`: requests that may wait for their turn."""

    listen: ListenAddress
    served: ServedModel
    most_waiting: int
    key: ServerToken | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


class ModelServer:
    """One run. `note` receives the events for the log. `clients` decides what clients may do, and records it."""

    def __init__(
        self,
        role: ServingRole,
        http: HttpSettings,
        note: Callable[[str], None],
        clients: ClientAccess = NO_CLIENTS,
    ) -> None:
        self._clients = clients
        self._role = role
        self._http = http
        self._note = note

    async def run(
        self,
        startup: Startup,
        source: ModelSource,
        *,
        on_listening: Callable[[str], None],
        on_ready: Callable[[str], None],
    ) -> None:
        """Serve until cancelled. `on_listening` is called with the URL once clients can connect, and `on_ready` once
        the model answers. Raises the error of a model that cannot be fetched or loaded."""
        admission = ServingAdmission.of(self._clients, self._role.key)
        endpoint = ChatEndpoint(self._role.served, startup, admission, most_waiting=self._role.most_waiting)
        async with self._serving(endpoint) as url:
            on_listening(url)
            endpoint.ready(await source.bring(startup))
            on_ready(url)
            async with companions() as start:
                start(source.stay())
                await endpoint.answered.wait()
                await source.first_answer()
                await asyncio.Event().wait()

    @asynccontextmanager
    async def _serving(self, endpoint: ChatEndpoint) -> AsyncIterator[str]:
        role, http = self._role, self._http
        secured = role.key is not None or (role.tls is not None and http.asks_for_certificates)
        own_user = not self._clients.authoriser.protects
        guard = RequestGuard.of(http, secured=secured, public=PUBLIC, own_user=own_user)
        server = serving(
            *(endpoint_app(endpoint, Traffic(), http=http), role.listen.host, role.listen.port),
            guard=guard,
            grace=GRACE,
            limits=limits.connections(http),
            tls=role.tls,
            end_with_client=True,
            note=self._note,
        )
        async with server as url:
            yield url
