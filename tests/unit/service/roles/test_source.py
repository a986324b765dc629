"""The HTTP source of a node: only offered snapshots, only with its token, at an address that peers can reach."""

import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.tokens import announce_key
from p2pmodel.http.exposition import Traffic
from p2pmodel.node.local_address import reachable_hosts
from p2pmodel.node.private.membership import PublicSwarm
from p2pmodel.service.roles.own_address import SourceAddress
from p2pmodel.service.roles.source import WebSeedLibrary, serving_source
from p2pmodel.store.cache import HubCache
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.node_swarm import CONTENTS
from tests.support.stored import publish

PEER = ListenAddress("127.0.0.2", 7001)
SNAPSHOT = snapshot_of(CONTENTS)


def settings(cache_dir: Path, **swarm: Any) -> Settings:
    return Settings(cache_dir=cache_dir, mirrors=(), swarm=SwarmSettings(**swarm))


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[WebSeedLibrary]:
    cache = HubCache(tmp_path)
    publish(cache, SNAPSHOT)
    async with serving_source(
        cache, PEER, settings(tmp_path, zone="rack1"), grace=0.2, note=print, traffic=Traffic()
    ) as served:
        yield served


async def get(source: WebSeedLibrary, snapshot: HubSnapshot, token: str | None = None) -> tuple[int, bytes]:
    at = source.source("http://127.0.0.1:9", SNAPSHOT.manifest)
    url = f"{at.endpoint}/{snapshot.manifest.repo}/resolve/{snapshot.commit}/config.json"
    headers = {"Authorization": f"Bearer {at.token if token is None else token}"}
    async with ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, await response.read()


async def test_it_serves_a_manifest_while_it_is_offered(source: WebSeedLibrary) -> None:
    assert (await get(source, SNAPSHOT))[0] == 404
    async with source.offering(SNAPSHOT.manifest, PublicSwarm()):
        assert source.sent(SNAPSHOT.manifest) == 0
        assert await get(source, SNAPSHOT) == (200, CONTENTS["config.json"])
        assert source.sent(SNAPSHOT.manifest) == len(CONTENTS["config.json"])
        assert (await get(source, SNAPSHOT, token="another"))[0] == 401
    assert (await get(source, SNAPSHOT))[0] == 404


async def test_the_token_of_one_snapshot_opens_no_other(source: WebSeedLibrary) -> None:
    async with source.offering(SNAPSHOT.manifest, PublicSwarm()):
        other = replace(SNAPSHOT.manifest, commit="1" * 40)
        foreign = source.source("http://127.0.0.1:9", other).token
        assert (await get(source, SNAPSHOT, token=foreign))[0] == 401
        at = source.source("http://127.0.0.1:9", other).endpoint
        refs = f"{at}/api/models/{SNAPSHOT.manifest.repo}/refs"
        async with (
            ClientSession(headers={"Authorization": f"Bearer {foreign}"}) as session,
            session.get(refs) as response,
        ):
            assert response.status == 401


MEMBER, PUBLISHER = "m" * 32, "p" * 32
PART = {"Range": "bytes=0-9"}
TARGETS = [
    *(f"org/repo/resolve/{SNAPSHOT.commit}/{path}" for path in CONTENTS),
    "org/repo/resolve/main/config.json",
    f"api/models/org/repo/revision/{SNAPSHOT.commit}",
    f"api/models/org/repo/tree/{SNAPSHOT.commit}?recursive=true",
    "api/models/org/repo/refs",
    "api/models/org/repo",
]


@pytest.mark.parametrize("offered", [False, True], ids=["private", "offered"])
@pytest.mark.parametrize(
    "authorization",
    [
        "",
        f"Bearer {MEMBER}",
        f"Bearer {PUBLISHER}",
        f"Bearer {announce_key(MEMBER)}",
        "Bearer ",
        f"Basic {b64encode(f'member:{MEMBER}'.encode()).decode()}",
        "the token of another snapshot",
    ],
)
async def test_no_token_of_a_member_opens_a_byte_of_a_snapshot(
    source: WebSeedLibrary, authorization: str, offered: bool
) -> None:
    """A private snapshot is never offered here. One that is offered opens with the token of its leases alone."""
    if authorization.startswith("the token"):
        other = source.source("http://127.0.0.1:9", replace(SNAPSHOT.manifest, commit="1" * 40))
        authorization = f"Bearer {other.token}"
    endpoint = source.source("http://127.0.0.1:9", SNAPSHOT.manifest).endpoint
    sent = {"Authorization": authorization} if authorization else {}
    offering = source.offering(SNAPSHOT.manifest, PublicSwarm()) if offered else nullcontext()
    async with offering, ClientSession() as session:
        asked = [*(("GET", target, {}) for target in TARGETS), ("HEAD", TARGETS[0], {}), ("GET", TARGETS[0], PART)]
        for method, target, more in asked:  # fewer than the wrong tokens after which an address must wait
            path = f"{endpoint}/{target.replace('org/repo', str(SNAPSHOT.manifest.repo))}"
            async with session.request(method, path, headers=sent | more, allow_redirects=False) as answer:
                body = await answer.read()
            assert answer.status in (401, 403, 404), (method, target, answer.status, body[:200])
            assert not any(content and content in body for content in CONTENTS.values())
            assert "ETag" not in answer.headers
            assert "X-Linked-ETag" not in answer.headers
    assert source.sent(SNAPSHOT.manifest) == 0


async def test_the_source_has_the_nodes_peer_address_and_zone(source: WebSeedLibrary) -> None:
    at = source.source("http://127.0.0.1:9", SNAPSHOT.manifest)
    assert (at.peer, at.zone) == ("127.0.0.2:7001", "rack1")
    assert at.endpoint.startswith("http://127.0.0.2:")


@pytest.mark.parametrize("coordinator", ["http://127.0.0.5:9/t0ken", "http://[:9"])
async def test_an_unspecified_address_becomes_that_of_the_route_to_the_coordinator(
    tmp_path: Path, coordinator: str
) -> None:
    host = reachable_hosts("0.0.0.0")[0]
    assert host != "0.0.0.0"
    if coordinator != "http://[:9":  # by the machine's own view
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.5", 9))
            host = probe.getsockname()[0]
    everywhere = ListenAddress("127.0.0.1", 7001)
    async with serving_source(
        HubCache(tmp_path), everywhere, settings(tmp_path), grace=0.2, note=print, traffic=Traffic()
    ) as source:
        source._address = SourceAddress(ListenAddress("0.0.0.0", 7001))  # without listening there
        at = source.source(coordinator, SNAPSHOT.manifest)
    assert at.peer == f"{host}:7001"
    assert at.endpoint.startswith(f"http://{host}:")


async def test_an_advertised_address_replaces_the_nodes_own(tmp_path: Path) -> None:
    advertising = settings(tmp_path, advertise=("203.0.113.7:7777", "fd00::7"), source_port=0)
    async with serving_source(
        HubCache(tmp_path), PEER, advertising, grace=0.2, note=print, traffic=Traffic()
    ) as source:
        at = source.source("http://127.0.0.5:9", SNAPSHOT.manifest)
    assert at.peer == "203.0.113.7:7777"
    assert at.endpoint.startswith("http://203.0.113.7:")
    assert not at.endpoint.endswith(":7777"), "that is the port for peers"


async def test_its_limit_changes_while_it_runs(source: WebSeedLibrary) -> None:
    source.pace.change(1 << 20)
    assert source.pace.block == 1 << 17
    source.pace.change(0)
    assert source.pace.block > 1 << 40
