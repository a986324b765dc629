"""The hub endpoint of a node over HTTP: access, immediate responses, and the way of tokens."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.sections.trust import AccessRule, AccessSettings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.http.exposition import Traffic
from p2pmodel.service.roles import hub_endpoint
from p2pmodel.service.roles.hub_endpoint import HubRole, check_mirrors, serving_hub
from p2pmodel.trust.access.authoriser import Authoriser, ClientAccess
from p2pmodel.trust.access.policy import AccessPolicy
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_machine import Machine, machine

__all__ = ["machine"]

ANYWHERE = ListenAddress("127.0.0.1", 0)
SNAPSHOT = snapshot_of({"config.json": b"{}", "model.safetensors": bytes(range(256)) * 9000})
FILE = "org/model/resolve/main/model.safetensors"
SECRET = "hf_of_the_client"
DAEMONS = "hf_of_the_daemon"


class Endpoint:
    """A node's endpoint in front of a hub that accepts one token."""

    def __init__(self, url: str, hub: FakeHub, http: ClientSession, log: Path) -> None:
        self.url, self.hub, self.log = url, hub, log
        self._http = http

    async def ask(self, path: str = FILE, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
        async with self._http.request(method, f"{self.url}/{path}", headers=headers) as answer:
            return answer.status, answer.headers, await answer.read()


@asynccontextmanager
async def endpoint(machine: Machine, token: str | None = None) -> AsyncIterator[Endpoint]:
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(FakeHub(SNAPSHOT, token=DAEMONS))
        mirror = MirrorSettings.model_validate({"name": "hub", "endpoint": hub.url, "token": DAEMONS})
        machine.use(mirrors=(mirror,), offline=False)
        node = await stack.enter_async_context(machine.running())
        clients = ClientAccess(Authoriser(AccessPolicy(machine.settings.access.rules)))
        role = HubRole(ANYWHERE, token, machine.root / "access.jsonl")
        url = await stack.enter_async_context(
            serving_hub(node, role, machine.notes.append, 0.1, Traffic(), clients=clients)
        )
        http = await stack.enter_async_context(ClientSession())
        assert url is not None
        assert role.access_log is not None
        yield Endpoint(url, hub, http, role.access_log)


async def test_headers_are_answered_at_once_and_the_file_follows(machine: Machine) -> None:
    file = SNAPSHOT.file("model.safetensors")
    async with endpoint(machine) as at:
        status, headers, _ = await at.ask(method="HEAD")
        assert status == 200
        assert headers["ETag"] == headers["X-Linked-Etag"] == f'"{file.etag}"'
        assert headers["X-Repo-Commit"] == SNAPSHOT.commit
        assert headers["Content-Length"] == headers["X-Linked-Size"] == str(file.size)
        assert headers["Accept-Ranges"] == "bytes"
        status, headers, body = await at.ask(Range="bytes=10-19")
        assert (status, body) == (206, SNAPSHOT.contents["model.safetensors"][10:20])
        assert (await at.ask())[2] == SNAPSHOT.contents["model.safetensors"]
        assert (await at.ask("org/model/resolve/main/none"))[1]["X-Error-Code"] == "EntryNotFound"


async def test_a_clients_token_is_neither_passed_on_nor_logged(machine: Machine) -> None:
    async with endpoint(machine) as at:
        assert (await at.ask(Authorization=f"Bearer {SECRET}"))[0] == 200
        assert {request.token for request in at.hub.requests} == {DAEMONS}
        for text in (at.log.read_text(), *machine.notes):
            assert SECRET not in text
            assert DAEMONS not in text


async def test_web_pages_are_refused(machine: Machine) -> None:
    async with endpoint(machine) as at:
        assert (await at.ask(Host="rebound.example"))[0] == 403
        assert (await at.ask(Origin="http://elsewhere.example"))[0] == 403
        assert (await at.ask(**{"Sec-Fetch-Site": "cross-site"}))[0] == 403
        assert not at.hub.requests


async def test_with_a_token_it_is_required(machine: Machine) -> None:
    async with endpoint(machine, token="sesame") as at:
        assert (await at.ask())[0] == 401
        status, headers, _ = await at.ask(Authorization="Bearer sesame")
        assert (status, headers["X-Error-Code"]) == (401, "GatedRepo"), "the model is private: its token opens no more"
    machine.use(access=AccessSettings(rules=(AccessRule(subjects=("server",)),)))
    async with endpoint(machine, token="sesame") as at:
        assert (await at.ask(Authorization="Bearer sesame"))[0] == 200


async def test_the_default_address_may_be_taken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with endpoint(machine) as at:
        taken = ListenAddress.parse(at.url.removeprefix("http://"))
        monkeypatch.setattr(hub_endpoint, "DEFAULT", taken)
        machine.root = machine.root / "other"
        machine.use(cache_dir=machine.root / "hub")
        async with machine.running() as node:
            async with serving_hub(node, HubRole(), machine.notes.append, 0.1, Traffic()) as url:
                assert url is None
            assert "set daemon.hub_listen to another address" in machine.notes[-1]
            with pytest.raises(LocalResource, match="in use"):
                async with serving_hub(node, HubRole(taken), machine.notes.append, 0.1, Traffic()):
                    pass


def test_a_mirror_that_is_the_endpoint_itself_is_refused(machine: Machine) -> None:
    for url in ("http://127.0.0.1:8092", "http://localhost:8092/"):
        machine.use(mirrors=(MirrorSettings(name="self", endpoint=url),))
        with pytest.raises(InvalidInput, match="own endpoint"):
            check_mirrors(machine.settings, HubRole())
        check_mirrors(machine.settings, HubRole(ListenAddress("127.0.0.1", 9)))
