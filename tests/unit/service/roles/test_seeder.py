"""The seeder role: coordinator and snapshot side by side, and publishing to the coordinators of others."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.sections.trust import TrustRule, TrustSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.catalog import find
from p2pmodel.coordinator.client.coordinators import Coordinator, configured
from p2pmodel.coordinator.client.publishing import publish as publish_torrent
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Credentials
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tokens import announce_url
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import AccessDenied, LocalResource, Unavailable
from p2pmodel.http.server import serving
from p2pmodel.node.fetch import job
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.seed.seed import SeedRequest, SeedResult
from p2pmodel.service.roles import seeder as role
from p2pmodel.service.roles.coordinator import CoordinatorRole
from p2pmodel.service.roles.seeder import Seeder, SeederAddresses
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.torrents import parse
from tests.support.coordinators import PUBLISHERS, TOKEN, client, token_file
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import CONTENTS, Heard, Swarm, assert_nothing_runs
from tests.support.stored import publish

MAIN = Reference.parse("org/model")
LOOPBACK = ListenAddress("127.0.0.1", 0)
CLOSED = "http://127.0.0.1:1"
SOURCE_TOKEN = "t0ken-of-the-source"


class Site:
    """A machine with the snapshot in its cache, which can run a seeder."""

    def __init__(self, root: Path) -> None:
        self.swarm = Swarm(root)
        self.heard = Heard()
        self.cache = HubCache(root / "seeder")
        publish(self.cache, snapshot_of(CONTENTS))

    def settings(self, *coordinators: str, endpoint: str = "http://m.test", offline: bool = True) -> Settings:
        return Settings(
            cache_dir=self.cache.root,
            mirrors=(MirrorSettings(name="m", endpoint=endpoint),),
            coordinators=coordinators,
            publish_token_file=token_file(self.cache.root.parent),
            state_dir=self.cache.root.parent / "state",
            offline=offline,
        )

    def seeder(self, *coordinators: str, ref: Reference = MAIN) -> Seeder:
        return Seeder(SeedRequest(ref), self.settings(*coordinators), self.heard.reporter)

    @asynccontextmanager
    async def running(
        self, *coordinators: str, token: str | None = None, public_url: str | None = None
    ) -> AsyncIterator[tuple[SeedResult, SeederAddresses]]:
        ready: asyncio.Future[tuple[SeedResult, SeederAddresses]] = asyncio.get_running_loop().create_future()
        work = self.seeder(*coordinators).run(
            CoordinatorRole.of(LOOPBACK, public_url, Credentials(token)),
            lambda seeded, served: ready.set_result((seeded, served)),
        )
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task, ready}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            yield await asyncio.wait_for(ready, PATIENCE)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(tmp_path)
    monkeypatch.setattr(role, "engine_of", lambda _settings: site.swarm.engine("127.0.0.2"))
    return site


@asynccontextmanager
async def coordinator() -> AsyncIterator[str]:
    async with serving(coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS), "127.0.0.1", 0) as base:
        yield base


async def test_once_ready_catalog_tracker_and_peer_are_there(site: Site) -> None:
    async with site.running() as (seeded, served):
        answer = await find(MAIN, [Coordinator(served.coordinator)], 5)
        assert answer.metainfo.raw == seeded.torrents["v2"]
        pinned = Reference.parse(f"org/model@{seeded.manifest.commit}")
        assert (await find(pinned, [Coordinator(served.coordinator)], 5)).metainfo.raw == answer.metainfo.raw
        assert (served.peer.host, served.peer.port) in site.swarm.network.engines
        site.swarm.metainfo = parse(seeded.torrents["v2"])
        assert site.swarm.metainfo.trackers == (f"{served.coordinator}/announce",)
        assert site.swarm.metainfo.webseeds == ("http://m.test/org/model/resolve/",)
    assert site.swarm.network.engines == {}
    assert not (await find(MAIN, [Coordinator(served.coordinator)], 1)).metainfo
    await assert_nothing_runs()


async def test_it_publishes_to_the_other_coordinators_too(site: Site) -> None:
    async with coordinator() as other, site.running(other, CLOSED) as (seeded, served):
        metainfo = parse(seeded.torrents["v2"])
        assert metainfo.trackers == (
            f"{served.coordinator}/announce",
            client(other).announce_url,
            client(CLOSED).announce_url,
        )
        await eventually(lambda: len(site.heard.notes) == 2, what="both coordinators were tried")
        assert (await find(MAIN, [Coordinator(other)], 5)).metainfo.raw == seeded.torrents["v2"]
    assert f"coordinator {other}: published" in site.heard.notes
    assert any(note.startswith(f"coordinator {CLOSED}: not published") for note in site.heard.notes)


async def test_a_token_is_in_no_url_and_never_shown(site: Site) -> None:
    async with site.running(token=TOKEN) as (seeded, served):
        with pytest.raises(AccessDenied):
            await find(MAIN, [Coordinator(served.coordinator)], 5)
        assert (await find(MAIN, [Coordinator(served.coordinator, TOKEN)], 5)).metainfo.raw == seeded.torrents["v2"]
        assert parse(seeded.torrents["v2"]).trackers == (announce_url(served.coordinator, TOKEN),)
        assert TOKEN.encode() not in seeded.torrents["v2"]
    assert TOKEN not in " ".join(site.heard.notes)


async def test_other_commands_of_its_user_publish_at_its_coordinator(site: Site) -> None:
    async with site.running(token=TOKEN) as (seeded, served):
        (found,) = configured(
            Settings(
                cache_dir=site.cache.root,
                mirrors=(),
                coordinators=(served.coordinator,),
                state_dir=site.cache.root.parent / "state",
            )
        )
        await publish_torrent(found, seeded.torrents["v2"], ["main"])
        assert found.local_file == served.publish_token_file
    assert found.publisher == ""


async def test_leaseholders_can_pull_only_the_seeded_snapshot(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    other = snapshot_of({"config.json": b"other"}, repo="org/other")
    publish(site.cache, other)
    monkeypatch.setattr(role.secrets, "token_urlsafe", lambda _size: SOURCE_TOKEN)
    async with site.running(token=TOKEN) as (seeded, served), ClientSession() as session:
        base = served.coordinator + role.SOURCE
        path = f"/org/model/resolve/{seeded.manifest.commit}/config.json"
        headers = {"Authorization": f"Bearer {SOURCE_TOKEN}"}
        async with session.get(base + path, headers=headers) as response:
            assert (response.status, await response.read()) == (200, CONTENTS["config.json"])
        async with session.get(f"{base}/org/other/resolve/{other.commit}/config.json", headers=headers) as response:
            assert response.status == 404
        for wrong in ({}, {"Authorization": f"Bearer {TOKEN}"}):
            async with session.get(base + path, headers=wrong) as response:
                assert response.status == 401


async def test_other_coordinators_receive_the_source(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role.secrets, "token_urlsafe", lambda _size: SOURCE_TOKEN)
    sources = Sources(time.monotonic)
    app = coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS, sources=sources)
    async with (
        serving(app, "127.0.0.1", 0) as other,
        site.running(other, token=TOKEN, public_url="https://seeder.test") as (seeded, served),
    ):
        info_hash = parse(seeded.torrents["v2"]).info_hash
        await eventually(lambda: bool(sources.of(info_hash)), what="the source is known")
        known = Source(f"https://seeder.test{role.SOURCE}", SOURCE_TOKEN, str(served.peer))
        assert sources.of(info_hash) == (known,)


async def test_a_public_url_is_part_of_the_torrent(site: Site) -> None:
    async with site.running(public_url="https://coordinator.test") as (seeded, served):
        assert served.coordinator == "https://coordinator.test"
        assert parse(seeded.torrents["v2"]).trackers == ("https://coordinator.test/announce",)


async def test_a_taken_port_fails_before_the_work_begins(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.swarm.engine("127.0.0.2") as other:
        taken = site.swarm.engine("127.0.0.2")
        monkeypatch.setattr(taken, "_settings", type(taken._settings)(host="127.0.0.2", port=other.address[1]))
        monkeypatch.setattr(role, "engine_of", lambda _settings: taken)
        with pytest.raises(LocalResource, match="address in use"):
            async with site.running():
                pass
    assert site.heard.latest is None
    await assert_nothing_runs()


async def test_build_publishes_and_ends(site: Site) -> None:
    async with coordinator() as url:
        seeded = await site.seeder(url).build()
        assert (await find(MAIN, [Coordinator(url)], 5)).metainfo.raw == seeded.torrents["v2"]
    assert parse(seeded.torrents["v2"]).trackers == (client(url).announce_url,)
    assert (await site.seeder().build()).trackers == ()
    await assert_nothing_runs()


async def test_build_fails_when_a_coordinator_cannot_be_reached(site: Site) -> None:
    with pytest.raises(Unavailable, match=rf"coordinator {CLOSED} cannot be reached"):
        await site.seeder(CLOSED).build()


@pytest.mark.parametrize("own_cache", [True, False], ids=["machines", "processes"])
async def test_a_seeder_and_a_node_that_fetches_meanwhile_take_one_copy_together(
    site: Site, monkeypatch: pytest.MonkeyPatch, own_cache: bool
) -> None:
    monkeypatch.setattr(job, "engine_of", lambda _settings: site.swarm.engine("127.0.0.3"))
    snapshot, catalog = snapshot_of(CONTENTS), Catalog()
    site.cache = HubCache(site.swarm.root / "empty")
    other = HubCache(site.swarm.root / "node") if own_cache else site.cache
    app = coordinator_app(Tracker(), catalog, credentials=PUBLISHERS)
    async with FakeHub(snapshot, rate=1_000_000) as hub, serving(app, "127.0.0.1", 0) as url:
        settings = site.settings(url, endpoint=hub.url, offline=False)
        node = settings.model_copy(update={"cache_dir": other.root})
        ready: list[FetchResult] = []
        seeder = Seeder(SeedRequest(MAIN, assemble=True), settings, site.heard.reporter)
        await asyncio.gather(Fetch(FetchRequest(MAIN), node, site.heard.reporter).run(ready.append), seeder.build())
        (answer,) = catalog.publications()
        assert not catalog.is_assembled(answer.info_hash)  # a publisher has confirmed it
        assert hub.sent <= 1.1 * snapshot.manifest.total_size
    for cache in (site.cache, other):
        assert site.swarm.published(cache) == CONTENTS
    assert len(ready) == 1
    await assert_nothing_runs()


async def test_a_publisher_that_signs_assembles_what_no_signature_covers_yet(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    used: list[Settings] = []

    class NoFetch:
        def __init__(self, _request: object, settings: Settings, *_: object, **__: object) -> None:
            used.append(settings)

        async def run(self, _on_ready: object) -> None: ...

    monkeypatch.setattr(role, "Fetch", NoFetch)
    rules = TrustSettings(rules=(TrustRule(repos=("*",), signature="enforce"),), allowed_signers=tmp_path / "signers")
    for signing, checked in ((tmp_path / "key", False), (None, True)):
        trust = rules.model_copy(update={"signing_key": signing})
        settings = site.settings(CLOSED).model_copy(update={"trust": trust})
        await Seeder(SeedRequest(MAIN, assemble=True), settings, site.heard.reporter)._assemble(None)
        assert bool(used[-1].trust.rules) is checked


async def test_a_pinned_commit_gets_no_name(site: Site) -> None:
    pinned = Reference.parse(f"org/model@{snapshot_of(CONTENTS).commit}")
    async with coordinator() as url:
        await site.seeder(url, ref=pinned).build()
        assert not (await find(MAIN, [Coordinator(url)], 5)).metainfo
        assert (await find(pinned, [Coordinator(url)], 5)).metainfo


async def test_no_announce_is_sent_when_mirroring_fails(tmp_path: Path, site: Site) -> None:
    snapshot = snapshot_of(CONTENTS)
    async with FakeHub(snapshot, faults=["status:404@*.json"]) as hub:
        settings = Settings(
            cache_dir=tmp_path / "empty",
            mirrors=(MirrorSettings(name="m", endpoint=hub.url),),
            origin=OriginSettings(patience=0.3),
        )
        failing = Seeder(SeedRequest(MAIN), settings, site.heard.reporter)
        with pytest.raises(Exception, match=r"config\.json"):
            await failing.run(CoordinatorRole(LOOPBACK), lambda *_: pytest.fail("ready"))
    assert site.swarm.network.swarms == {}
    assert site.swarm.network.engines == {}
    await assert_nothing_runs()
