"""A model that does not come ends the server, with the reason."""

import asyncio

import aiohttp
import pytest

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import IntegrityError, LocalResource
from p2pmodel.node.reporter import Reporter
from p2pmodel.serving.answers import ChatModel
from p2pmodel.serving.endpoint import ServedModel
from p2pmodel.serving.model_server import ModelServer, ServingRole
from p2pmodel.serving.startup import Startup
from tests.support.chat_models import ScriptedModel
from tests.support.model_endpoint import HeldSource


class DamagedSource(HeldSource):
    async def bring(self, startup: Startup) -> ChatModel:
        startup.verified()
        raise IntegrityError("a weight file is damaged")


def server(port: int = 0) -> ModelServer:
    served = ServedModel("org/model", frozenset(("org/model",)), 9)
    return ModelServer(ServingRole(ListenAddress("127.0.0.1", port), served, 1), HttpSettings(), lambda _: None)


async def test_the_error_of_a_model_that_cannot_be_loaded() -> None:
    urls = list[str]()
    run = server().run(
        Startup("org/model", Reporter()),
        DamagedSource(ScriptedModel()),
        on_listening=urls.append,
        on_ready=lambda _: pytest.fail("it is not ready"),
    )
    with pytest.raises(IntegrityError, match="a weight file is damaged"):
        await run
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(urls[0])


async def test_a_taken_port_is_told_before_anything_is_fetched() -> None:
    async with asyncio.timeout(60):
        other = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        async with other:
            source = HeldSource(ScriptedModel())
            run = server(other.sockets[0].getsockname()[1]).run(
                Startup("org/model", Reporter()), source, on_listening=pytest.fail, on_ready=pytest.fail
            )
            with pytest.raises(LocalResource, match="the port is in use"):
                await run
            assert not source.arrived.is_set()
