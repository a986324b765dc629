"""The HTTP source of private snapshots with real coordinators: members get the content, others not a byte."""

import asyncio
import datetime as dt
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector

from p2pmodel.config.sections.coordinator import PrivateSettings
from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.credentials import Credentials
from p2pmodel.coordinator.server.private_swarms import PrivateSwarms
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.egress import PUBLIC
from p2pmodel.core.pace import Pace
from p2pmodel.errors import P2PModelError
from p2pmodel.http.exposition import SentBytes, Traffic
from p2pmodel.http.server import serving
from p2pmodel.node.fetch.pieces.seeders import Endpoint, Seeders
from p2pmodel.node.private.membership import SwarmMembership
from p2pmodel.node.reporter import Reporter
from p2pmodel.service.roles.own_address import SourceAddress
from p2pmodel.service.roles.private_source import PrivateSource
from p2pmodel.service.roles.source import serving_source
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.engine import SwarmCertificate
from p2pmodel.swarm.torrents import parse
from p2pmodel.tls import MutualTls
from tests.support.eventually import PATIENCE, eventually
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish
from tests.support.swarm_certificates import NOW, certificate_for, new_authority
from tests.support.torrent_files import torrent_of

CONTENTS = {"config.json": b"{}", "model.safetensors": os.urandom(8 << 20)}
CONTENT = CONTENTS["model.safetensors"]
AUTHORITY = new_authority()
PEM = AUTHORITY.pem.decode()
METAINFO = parse(torrent_of(CONTENTS, repo="org/model", authority=PEM))
MANIFEST = METAINFO.manifest
OTHER = "d" * 40
TOKENS = Credentials("m" * 16, {"seeder": "s" * 16, "one": "a" * 16, "two": "b" * 16})
PATH = f"org/model/resolve/{MANIFEST.commit}/model.safetensors"
UNLISTED = "127.0.0.77"


@dataclass
class Rig:
    """A coordinator, and a node that serves the snapshot."""

    coordinator: str
    swarms: PrivateSwarms
    source: PrivateSource
    sent: SentBytes
    pace: Pace
    stack: AsyncExitStack

    async def member(self, token: str) -> SwarmMembership:
        """A node in the swarm."""
        membership = SwarmMembership([Coordinator(self.coordinator, token)], Reporter())
        self.stack.push_async_callback(membership.close)
        await membership.join(METAINFO, ["127.0.0.1"], timeout=PATIENCE)
        return membership

    @property
    def url(self) -> str:
        return self.source.source(self.coordinator, MANIFEST).endpoint

    async def get(
        self, tls: MutualTls, path: str = PATH, *, address: str = "127.0.0.1", url: str = ""
    ) -> tuple[int, bytes]:
        """Status and body; (0, b"") where the connection ends without a response."""
        async with ClientSession(connector=TCPConnector(local_addr=(address, 0))) as session:
            try:
                ask = session.get(f"{url or self.url}/{path}", ssl=tls.client, server_hostname=tls.name)
                async with ask as response:
                    return response.status, await response.read()
            except (ClientError, ConnectionError, ssl.SSLError):
                return 0, b""

    def revoke(self, *names: str) -> None:
        self.swarms.revoke(PrivateSettings(revoked=names))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        catalog, sent, pace = Catalog(), SentBytes(), Pace()
        await catalog.publish(read_publication(METAINFO.raw), ["main"])
        swarms = PrivateSwarms(catalog, PrivateSettings(), authority=AUTHORITY)
        app = coordinator_app(Tracker(), catalog, credentials=TOKENS, private=swarms)
        coordinator = await stack.enter_async_context(serving(app, "127.0.0.1", 0, grace=0.2))
        cache = HubCache(tmp_path)
        publish(cache, snapshot_of(CONTENTS, "org/model", MANIFEST.commit))
        settings = Settings(cache_dir=tmp_path, mirrors=())
        address = SourceAddress(ListenAddress("127.0.0.1", 7001))
        source = PrivateSource(cache, address, settings, pace, sent, grace=0.2, note=print)
        await stack.enter_async_context(source)
        rig = Rig(coordinator, swarms, source, sent, pace, stack)
        await stack.enter_async_context(source.offering(MANIFEST, await rig.member("s" * 16)))
        yield rig


def presenting(certificate: SwarmCertificate | None, commit: str = MANIFEST.commit) -> MutualTls:
    tls = MutualTls(PEM, commit)
    if certificate is not None:
        tls.present(certificate.certificate, certificate.key)
    return tls


async def test_a_member_gets_the_content(rig: Rig) -> None:
    node = await rig.member("a" * 16)
    assert await rig.get(node.tls) == (200, CONTENT)
    assert rig.sent.bytes == len(CONTENT)
    assert await rig.get(node.tls, "api/models/org/model/refs") != (0, b"")


@pytest.mark.parametrize(
    ("certificate", "statuses"),
    [
        (None, {0}),
        (certificate_for(new_authority("strange"), MANIFEST.commit), {0}),
        (certificate_for(AUTHORITY, MANIFEST.commit, now=NOW - dt.timedelta(hours=2)), {0}),
        (certificate_for(AUTHORITY, OTHER), {401, 403}),
    ],
    ids=["no certificate", "of another authority", "expired", "for another commit"],
)
async def test_a_client_without_a_right_certificate_gets_no_byte_while_a_member_does(
    rig: Rig, certificate: SwarmCertificate | None, statuses: set[int]
) -> None:
    node = await rig.member("a" * 16)
    (status, body), (right, content) = await asyncio.gather(rig.get(presenting(certificate)), rig.get(node.tls))
    assert status in statuses
    assert CONTENT[:32] not in body
    assert (right, content == CONTENT) == (200, True)
    assert rig.sent.bytes == len(CONTENT), "the member's alone"


async def test_a_right_certificate_at_an_unlisted_address_gets_no_byte(rig: Rig) -> None:
    node = await rig.member("a" * 16)
    status, body = await rig.get(node.tls, address=UNLISTED)
    assert status in (401, 403)
    assert CONTENT[:32] not in body
    assert rig.sent.bytes == 0


async def test_a_daemon_offers_its_private_snapshots_beside_the_public_ones(rig: Rig, tmp_path: Path) -> None:
    node, daemon, address = await rig.member("a" * 16), await rig.member("b" * 16), ListenAddress("127.0.0.1", 7001)
    settings = Settings(cache_dir=tmp_path, mirrors=())
    source = serving_source(HubCache(tmp_path), address, settings, grace=0.2, note=print, traffic=Traffic())
    async with source as web_seed:
        public = web_seed.source(rig.coordinator, MANIFEST)
        async with web_seed.offering(MANIFEST, daemon):
            private = web_seed.source(rig.coordinator, MANIFEST)
            assert (private.endpoint.split(":")[0], private.token) == ("https", "")
            assert await rig.get(node.tls, url=private.endpoint) == (200, CONTENT)
            assert web_seed.sent(MANIFEST) == len(CONTENT)
            headers = {"Authorization": f"Bearer {public.token}"}
            async with ClientSession(headers=headers) as http, http.get(f"{public.endpoint}/{PATH}") as answer:
                assert answer.status == 404, "that is for public snapshots"
        assert web_seed.source(rig.coordinator, MANIFEST) == public
        assert await rig.get(node.tls, url=private.endpoint) == (0, b"")


async def test_over_plain_http_there_is_nothing(rig: Rig) -> None:
    async with ClientSession() as session:
        with pytest.raises((ClientError, ConnectionError)):
            await session.get(rig.url.replace("https:", "http:") + f"/{PATH}")
    assert rig.sent.bytes == 0


async def test_a_node_that_is_revoked_in_the_middle_of_a_response_is_cut_off_beside_another_at_its_address(
    rig: Rig,
) -> None:
    """Both nodes are at 127.0.0.1, so the number of the certificate alone tells them apart."""
    gone, stays = await rig.member("a" * 16), await rig.member("b" * 16)
    rig.pace.change(256 << 10)
    received = {"one": 0, "two": 0}

    async def read(name: str, tls: MutualTls) -> None:
        async with (
            ClientSession(read_bufsize=1 << 14) as session,
            session.get(f"{rig.url}/{PATH}", ssl=tls.client, server_hostname=tls.name) as response,
        ):
            async for block in response.content.iter_any():
                received[name] += len(block)

    reading = {name: asyncio.create_task(read(name, node.tls)) for name, node in (("one", gone), ("two", stays))}
    await eventually(lambda: all(received.values()), what="both receive")
    rig.revoke("one")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises((ClientError, ConnectionError)):
            await reading["one"]
    assert 0 < received["one"] < len(CONTENT)
    assert not reading["two"].done()
    rig.pace.change(0)
    async with asyncio.timeout(PATIENCE):
        await reading["two"]
    assert received["two"] == len(CONTENT)
    status, body = await rig.get(gone.tls)
    assert (status in (401, 403), CONTENT[:32] in body) == (True, False)


async def test_a_node_that_has_left_and_is_revoked_then_gets_nothing_with_its_old_certificate(rig: Rig) -> None:
    gone, stays = await rig.member("a" * 16), await rig.member("b" * 16)
    assert (await rig.get(gone.tls, "org/model/resolve/main/config.json"))[0] == 200
    await gone.close()
    rig.revoke("one")

    async def refused() -> bool:
        return (await rig.get(gone.tls, "org/model/resolve/main/config.json"))[0] in (401, 403)

    async with asyncio.timeout(PATIENCE):
        while not await refused():  # noqa: ASYNC110 - another server
            await asyncio.sleep(0.05)
    assert (await rig.get(stays.tls, "org/model/resolve/main/config.json"))[0] == 200


async def test_a_leaseholder_reads_with_its_certificate_and_over_tls_alone(rig: Rig) -> None:
    node, near = await rig.member("a" * 16), PUBLIC.in_cluster("127.0.0.1")
    file = next(each for each in MANIFEST.files if each.path == "model.safetensors")
    wanted = CONTENT[100:5100]
    async with Seeders(OriginSettings(), "me", lambda _: None) as seeders:
        seeders.ask_as(node.tls)
        await seeders.update([Endpoint(rig.url.replace("https:", "http:"), egress=near)])
        assert not seeders.usable
        await seeders.update([Endpoint(rig.url, egress=near)])
        found = await seeders.read(MANIFEST, file, 100, len(wanted), accept=lambda data: data == wanted)
    assert found == wanted
    async with Seeders(OriginSettings(), "me", lambda _: None) as strangers:
        await strangers.update([Endpoint(rig.url, egress=near)])
        with pytest.raises(P2PModelError):
            await strangers.read(MANIFEST, file, 100, len(wanted), accept=lambda data: data == wanted)
    assert rig.sent.bytes == len(wanted)


async def test_what_is_not_offered_any_more_is_cut_off(rig: Rig, tmp_path: Path) -> None:
    node, seeder = await rig.member("a" * 16), await rig.member("s" * 16)
    rig.pace.change(256 << 10)
    async with ClientSession(read_bufsize=1 << 14) as session:
        async with rig.source.offering(MANIFEST, seeder):
            ask = session.get(f"{rig.url}/{PATH}", ssl=node.tls.client, server_hostname=MANIFEST.commit)
            response = await ask
            await response.content.read(1)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises((ClientError, ConnectionError)):
                await response.read()


async def test_a_connection_ends_before_its_certificate_does(rig: Rig) -> None:
    """The client connects again with a new certificate, before a request would be refused."""
    node = await rig.member("a" * 16)
    short = certificate_for(AUTHORITY, MANIFEST.commit, now=dt.datetime.now(dt.UTC), seconds=20)
    for tls, ends in ((node.tls, False), (presenting(short), True)):
        async with (
            ClientSession() as session,
            session.get(f"{rig.url}/{PATH}", ssl=tls.client, server_hostname=tls.name) as response,
        ):
            assert (response.headers.get("Connection") == "close") is ends
            await response.read()
