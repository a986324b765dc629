"""The voucher of a torrent: mirrors, records, the commit itself, and a coordinator only where the user says so."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import Contradicted, P2PModelError, Unconfirmed
from p2pmodel.node.snapshot.evidence.voucher import recorded_voucher, vouched_commits
from p2pmodel.node.snapshot.resolve import find_reference, find_torrent
from p2pmodel.node.snapshot.target import ResolvedTarget, TorrentTarget
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.store.importer import commit_of
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.torrents import Metainfo, build, layout_of, parse
from tests.support.coordinators import answering, catalog_of, torrent
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.node_swarm import Heard
from tests.support.torrent_files import trees_of

CLOSED = "http://127.0.0.1:1"
COMMIT = "c0" * 20
GOOD = {"config.json": b"{}", "model.safetensors": b"good" * 50_000}
EVIL = {"config.json": b"{}", "model.safetensors": b"evil" * 50_000}
SNAPSHOT = snapshot_of(GOOD, commit=COMMIT)
MAIN = Reference.parse("org/model")
PINNED = Reference.parse(f"org/model@{COMMIT}")


def torrent_of(contents: dict[str, bytes], commit: str = COMMIT) -> Metainfo:
    manifest = snapshot_of(contents, commit=commit).manifest
    return parse(build(manifest, trees_of(contents, layout_of(manifest).piece_length)))


class NoEngine:
    async def started(self) -> Engine:
        raise AssertionError("an engine was started")


class Victim:
    """A node that resolves targets, with a state folder of its own."""

    def __init__(self, root: Path) -> None:
        self.cache = HubCache(root / "hub")
        self.heard = Heard()
        self.state: Path | None = root / "state"

    def settings(self, *coordinators: str, trust: str = "mirrors", offline: bool = False) -> Settings:
        return Settings(
            cache_dir=self.cache.root,
            mirrors=(),
            coordinators=coordinators,
            offline=offline,
            state_dir=self.state,
            swarm=SwarmSettings(coordinator_timeout=2, trust=trust),  # type: ignore[arg-type]
        )

    @asynccontextmanager
    async def origin(self, mirror: str | None) -> AsyncIterator[Origin | None]:
        if mirror is None:
            yield None
            return
        listed = [MirrorSettings(name="hub", endpoint=mirror)]
        async with Origin(listed, OriginSettings(connect_timeout=1, read_timeout=1, patience=0.1)) as origin:
            yield origin

    async def find(
        self, ref: Reference, coordinators: Sequence[str], mirror: str | None, *, trust: str = "mirrors"
    ) -> ResolvedTarget:
        settings = self.settings(*coordinators, trust=trust, offline=mirror is None)
        async with self.origin(mirror) as origin:
            return await find_reference(ref, settings, self.cache, origin, self.heard.reporter)

    async def open(self, metainfo: Metainfo, mirror: str | None, *, trust: str = "mirrors") -> ResolvedTarget:
        async with self.origin(mirror) as origin:
            target = TorrentTarget("x", metainfo.raw)
            return await find_torrent(target, self.settings(trust=trust), NoEngine(), origin, self.heard.reporter)


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    return Victim(tmp_path)


def hub(snapshot: HubSnapshot = SNAPSHOT) -> FakeHub:
    return FakeHub(snapshot)


@pytest.mark.parametrize("ref", [MAIN, PINNED])
async def test_a_torrent_that_a_mirror_lists_is_used(victim: Victim, ref: Reference) -> None:
    async with catalog_of(torrent_of(GOOD), "main") as url, hub() as mirror:
        found = await victim.find(ref, [url], mirror.url)
        assert found.metainfo is not None
        assert found.vouched_by == "mirror hub"
        assert all("/api/models/org/model/" in request.path for request in mirror.requests)


async def test_a_mirror_that_answers_before_the_coordinator_is_the_voucher(victim: Victim) -> None:
    async with answering(torrent(torrent_of(GOOD).raw), delay=0.5) as url, hub() as mirror:
        found = await victim.find(PINNED, [url], mirror.url)
    assert found.metainfo is not None
    assert found.vouched_by == "mirror hub"


@pytest.mark.parametrize("ref", [MAIN, PINNED])
async def test_other_files_than_the_mirrors_are_not_used(victim: Victim, ref: Reference) -> None:
    async with catalog_of(torrent_of(EVIL), "main") as url, hub() as mirror:
        found = await victim.find(ref, [url], mirror.url)
    assert (found.manifest, found.metainfo) == (SNAPSHOT.manifest, None)
    assert any("not that of the mirrors: model.safetensors has another hash" in note for note in victim.heard.notes)


async def test_a_mirrors_word_on_a_name_wins(victim: Victim) -> None:
    invented = torrent_of(EVIL, "ee" * 20)
    async with catalog_of(invented, "main") as url, hub() as mirror:
        found = await victim.find(MAIN, [url], mirror.url)
    assert found.manifest.commit == COMMIT
    assert found.metainfo is None
    assert any("using the mirrors' commit" in note for note in victim.heard.notes)


async def test_the_torrent_of_the_mirrors_commit_is_asked_for(victim: Victim) -> None:
    invented = torrent_of(EVIL, "ee" * 20)
    async with catalog_of(invented, "main", also=[torrent_of(GOOD)]) as url, hub() as mirror:
        found = await victim.find(MAIN, [url], mirror.url)
    assert found.metainfo is not None
    assert (found.manifest.commit, found.vouched_by) == (COMMIT, "mirror hub")


@pytest.mark.parametrize("mirror", [CLOSED, None])
@pytest.mark.parametrize("ref", [MAIN, PINNED])
async def test_without_a_mirror_nothing_confirms_a_torrent(victim: Victim, ref: Reference, mirror: str | None) -> None:
    async with catalog_of(torrent_of(GOOD), "main") as url:
        with pytest.raises(Unconfirmed, match="P2PMODEL_SWARM_TRUST"):
            await victim.find(ref, [url], mirror)


@pytest.mark.parametrize("mirror", [CLOSED, None])
async def test_a_coordinators_word_counts_where_the_user_says_so(victim: Victim, mirror: str | None) -> None:
    async with catalog_of(torrent_of(GOOD), "main") as url:
        found = await victim.find(MAIN, [url], mirror, trust="coordinator")
    assert found.vouched_by == "coordinator"
    assert recorded_voucher(victim.settings(), found.manifest) == "coordinator"
    with pytest.raises(Unconfirmed):  # that is no mirror's word
        await victim.open(torrent_of(GOOD), mirror)


async def test_a_recorded_commit_needs_no_mirror(victim: Victim) -> None:
    async with hub() as mirror:
        await victim.find(PINNED, [], mirror.url)
    async with catalog_of(torrent_of(GOOD), "main") as url:
        assert (await victim.find(PINNED, [url], None)).vouched_by == "record"
        with pytest.raises(Unconfirmed):
            await victim.find(MAIN, [url], None)
    async with catalog_of(torrent_of(EVIL)) as url:
        with pytest.raises(Unconfirmed):
            await victim.find(PINNED, [url], CLOSED)


async def test_a_torrent_at_hand_is_checked_too(victim: Victim) -> None:
    async with hub() as mirror:
        with pytest.raises(Contradicted, match="mirror hub lists other files"):
            await victim.open(torrent_of(EVIL), mirror.url)
    assert (await victim.open(torrent_of(GOOD), None)).vouched_by == "record"
    assert (await victim.open(torrent_of(EVIL), None, trust="coordinator")).vouched_by == "coordinator"


async def test_the_commit_of_an_imported_folder_vouches_for_its_files(victim: Victim) -> None:
    own = commit_of(SNAPSHOT.manifest.files)
    metainfo = torrent_of(GOOD, own)
    async with catalog_of(metainfo) as url:
        found = await victim.find(Reference.parse(f"org/model@{own}"), [url], CLOSED)
    assert found.vouched_by == "commit"
    with pytest.raises(Unconfirmed):
        await victim.open(torrent_of(EVIL, own), CLOSED)


async def test_without_a_state_folder_the_mirror_is_asked_again(victim: Victim) -> None:
    victim.state = None
    async with hub() as mirror:
        for _ in range(2):
            assert (await victim.open(torrent_of(GOOD), mirror.url)).vouched_by == "mirror hub"
    with pytest.raises(Unconfirmed):
        await victim.open(torrent_of(GOOD), None)


async def test_a_snapshot_of_other_files_than_were_vouched_for(victim: Victim) -> None:
    async with hub() as mirror:
        await victim.find(PINNED, [], mirror.url)
    settings = victim.settings()
    assert recorded_voucher(settings, SNAPSHOT.manifest) == "mirror hub"
    evil: Manifest = torrent_of(EVIL).manifest
    with pytest.raises(Contradicted, match="in this cache are not those that mirror hub listed"):
        recorded_voucher(settings, evil)
    vouched_commits(settings).record(evil, "coordinator", proven=False)
    assert recorded_voucher(settings, SNAPSHOT.manifest) == "mirror hub"


async def test_a_mirrors_refusal_is_told(victim: Victim) -> None:
    async with catalog_of(torrent_of(GOOD), "main") as url, FakeHub(replace(SNAPSHOT, repo="other/model")) as mirror:
        with pytest.raises(P2PModelError, match="no mirror confirms the torrent of org/model@main: "):
            await victim.find(MAIN, [url], mirror.url)
