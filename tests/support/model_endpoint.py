"""A served model without torch, on loopback, and its double of a fetch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.http.admission.access import ServerToken
from p2pmodel.node.reporter import Reporter
from p2pmodel.serving.answers import ChatModel
from p2pmodel.serving.endpoint import ServedModel
from p2pmodel.serving.model_server import ModelServer, ModelSource, ServingRole
from p2pmodel.serving.startup import Startup
from p2pmodel.trust.access.authoriser import NO_CLIENTS, ClientAccess
from tests.support.chat_models import ScriptedModel

NAME = "org/model"


@dataclass
class HeldSource(ModelSource):
    """Hands `model` over once `arrived` is set. `reports`: what it was told."""

    model: ChatModel
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    reports: list[str] = field(default_factory=list)

    async def bring(self, startup: Startup) -> ChatModel:
        await self.arrived.wait()
        startup.verified()
        return self.model

    async def first_answer(self) -> None:
        self.reports.append("answered")

    async def stay(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.reports.append("gone")


@dataclass
class Served:
    """A running server."""

    url: str
    startup: Startup
    source: HeldSource
    ready: asyncio.Event

    @property
    def api(self) -> str:
        return f"{self.url}/v1"


@asynccontextmanager
async def serving_model(
    model: ChatModel | None = None,
    *,
    held: bool = False,
    key: str | None = None,
    most_waiting: int = 2,
    most_tokens: int = 100,
    clients: ClientAccess = NO_CLIENTS,
) -> AsyncIterator[Served]:
    """Serve `model`; `held`: it has not arrived yet."""
    startup, source = Startup(NAME, Reporter()), HeldSource(model or ScriptedModel())
    served = ServedModel(NAME, frozenset((NAME, f"{NAME}@main")), most_tokens)
    role = ServingRole(ListenAddress("127.0.0.1", 0), served, most_waiting, ServerToken(key) if key else None)
    urls: asyncio.Queue[str] = asyncio.Queue()
    ready = asyncio.Event()
    server = ModelServer(role, HttpSettings(), lambda _: None, clients)
    run = server.run(startup, source, on_listening=urls.put_nowait, on_ready=lambda _: ready.set())
    task = asyncio.create_task(run)
    try:
        running = Served(await urls.get(), startup, source, ready)
        if not held:
            source.arrived.set()
            await ready.wait()
        yield running
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or isinstance(task.exception(), asyncio.CancelledError)
