"""Rules on signatures, wherever a snapshot comes from: a catalog, a .torrent, or the mirrors alone."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.sections.trust import TrustRule, TrustSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.catalog.signatures import SignatureStore
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import P2PModelError, Untrusted
from p2pmodel.http.server import serving
from p2pmodel.node.fetch import job
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.pull_through import PullThrough
from p2pmodel.node.hub.sync import MirrorSync
from p2pmodel.node.seed.seed import SeedRequest, SeedRun
from p2pmodel.node.snapshot.evidence.signature_check import SignatureCheck, signature_records
from p2pmodel.node.snapshot.resolve import find_reference, find_torrent
from p2pmodel.node.snapshot.target import ResolvedTarget, TorrentTarget
from p2pmodel.origin.origin import Origin
from p2pmodel.store.state.sync_log import SyncLog
from p2pmodel.swarm.torrents import build, parse
from p2pmodel.trust.signatures.signing_key import read_signing_key
from p2pmodel.trust.signatures.statement import SUFFIX, SignedStatement, Statement, written
from tests.support.fake_hub import FakeHub
from tests.support.node_swarm import CONTENTS, TRACKER, Heard, Swarm, without_mirrors
from tests.support.ssh_keys import SshKeys
from tests.support.torrent_files import trees_of
from tests.unit.node.snapshot.test_resolve import GivenEngine

pytestmark = pytest.mark.needs("ssh-keygen")

NOW = 1_800_000_000.0
BAD = ("changed", "added", "stranger", "expired", "revoked", "unsigned")


@dataclass
class Signed:
    """A node with allowed signers, and the statements of one case over the snapshot of `swarm`."""

    root: Path
    case: str

    def __post_init__(self) -> None:
        self.swarm, self.heard, self.keys = Swarm(self.root), Heard(), SshKeys(self.root / "keys")
        self.key, self.stranger = self.keys.new("key"), self.keys.new("stranger")
        self.cache = self.swarm.cache()
        self.revoked = self.keys.folder / "revoked"
        self.revoked.write_text(self.keys.public(self.key) if self.case == "revoked" else "")
        window = 'valid-before="20200101Z" ' if self.case == "expired" else ""
        self.allowed = self.keys.allow(f"alice {window}{self.keys.public(self.key)}")

    def statements(self) -> list[SignedStatement]:
        metainfo = self.swarm.metainfo
        manifest = {"changed": self._changed, "added": self._added}.get(self.case, lambda: metainfo.manifest)()
        key = read_signing_key(self.stranger if self.case == "stranger" else self.key)
        signed = SignedStatement.by(key, Statement.over(manifest, metainfo.info_hash, NOW))
        return [] if self.case == "unsigned" else [signed]

    def _changed(self) -> Manifest:
        manifest = self.swarm.metainfo.manifest
        first = replace(manifest.files[0], git_oid="0" * 40, sha256=None)
        return replace(manifest, files=(first, *manifest.files[1:]))

    def _added(self) -> Manifest:
        manifest = self.swarm.metainfo.manifest
        return replace(manifest, files=(*manifest.files, replace(manifest.files[0], path="more.py")))

    def settings(self, mode: str, *coordinators: str) -> Settings:
        rule = TrustRule(repos=("org/*",), signature=mode)
        return Settings(
            cache_dir=self.cache.root,
            mirrors=(),
            coordinators=coordinators,
            state_dir=self.root / "state",
            swarm=SwarmSettings(coordinator_timeout=5),
            trust=TrustSettings(allowed_signers=self.allowed, revoked_signers=self.revoked, rules=(rule,)),
        )

    async def find(self, way: str, mode: str) -> ResolvedTarget:
        """Find the snapshot in one `way`: `catalog`, `file` or `mirrors`."""
        ref = Reference.parse("org/model")
        torrent = self.root / "m.torrent"
        async with self.coordinator(torrent=way == "catalog") as url, FakeHub(self.swarm.snapshot) as hub:
            listed = [MirrorSettings(name="m", endpoint=hub.url)]
            async with Origin(listed, OriginSettings(connect_timeout=5, read_timeout=5, patience=1)) as origin:
                if way != "file":
                    settings = self.settings(mode, url)
                    return await find_reference(ref, settings, self.cache, origin, self.heard.reporter)
                torrent.write_bytes(self.swarm.metainfo.raw)
                torrent.with_name(f"m.torrent{SUFFIX}").write_bytes(written(self.statements()))
                target = TorrentTarget(str(torrent))
                return await find_torrent(target, self.settings(mode), GivenEngine(None), origin, self.heard.reporter)

    @asynccontextmanager
    async def coordinator(self, *, torrent: bool) -> AsyncIterator[str]:
        catalog, store = Catalog(), SignatureStore()
        if torrent:
            await catalog.publish(read_publication(self.swarm.metainfo.raw), ["main"])
        for signed in self.statements():
            await store.publish("seeder", signed)
        async with serving(coordinator_app(Tracker(), catalog, signatures=store), "127.0.0.1", 0, grace=0.1) as url:
            yield url

    def said(self) -> Sequence[str]:
        return [note for note in self.heard.notes if "trust.rules" in note]


@pytest.mark.parametrize("way", ["catalog", "file", "mirrors"])
@pytest.mark.parametrize("case", ["good", *BAD])
async def test_off_warns_and_enforces(tmp_path: Path, case: str, way: str) -> None:
    node = Signed(tmp_path, case)
    manifest = node.swarm.metainfo.manifest
    found = await node.find(way, "off")
    assert not found.vouched_by.startswith("signature")
    assert node.said() == []

    found = await node.find(way, "warn")
    assert found.manifest == manifest
    warning = signature_records(node.settings("warn")).warning(manifest.repo, manifest.commit)
    if case == "good":
        assert (found.vouched_by, node.said(), warning) == ("signature alice", [], None)
        assert (await node.find(way, "enforce")).vouched_by == "signature alice"
        return
    assert not found.vouched_by.startswith("signature")
    assert len(node.said()) == 1
    assert warning is not None
    reason = {
        "changed": "other files",
        "added": "other files",
        "stranger": "not among",
        "expired": "expired",
        "revoked": "revoked",
        "unsigned": "not signed",
    }[case]
    assert reason in warning.reason
    with pytest.raises(Untrusted, match=reason):
        await node.find(way, "enforce")


async def test_a_signature_vouches_where_no_mirror_answers(tmp_path: Path) -> None:
    node = Signed(tmp_path, "good")
    ref = Reference(node.swarm.metainfo.manifest.repo, node.swarm.metainfo.manifest.commit)
    async with node.coordinator(torrent=True) as url:
        found = await find_reference(ref, node.settings("warn", url), node.cache, None, node.heard.reporter)
    assert found.vouched_by == "signature alice"
    # The statement is kept: neither a coordinator nor a mirror is needed a second time, unless the key is revoked.
    torrent = tmp_path / "m.torrent"
    torrent.write_bytes(node.swarm.metainfo.raw)
    target, engine = TorrentTarget(str(torrent)), GivenEngine(None)
    again = await find_torrent(target, node.settings("enforce"), engine, None, node.heard.reporter)
    assert again.vouched_by == "signature alice"
    node.revoked.write_text(node.keys.public(node.key))
    with pytest.raises(Untrusted, match="revoked"):
        await find_torrent(target, node.settings("enforce"), engine, None, node.heard.reporter)


async def test_an_unsigned_torrent_gives_way_to_the_mirrors_if_the_files_are_signed(tmp_path: Path) -> None:
    node = Signed(tmp_path, "good")
    manifest, listed = node.swarm.metainfo.manifest, node.swarm.snapshot
    other = SignedStatement.by(read_signing_key(node.key), Statement.over(manifest, "ee" * 32, NOW))
    catalog, store = Catalog(), SignatureStore()
    await catalog.publish(read_publication(node.swarm.metainfo.raw), ["main"])
    await store.publish("seeder", other)
    async with (
        serving(coordinator_app(Tracker(), catalog, signatures=store), "127.0.0.1", 0, grace=0.1) as url,
        FakeHub(listed) as hub,
        Origin([MirrorSettings(name="m", endpoint=hub.url)], OriginSettings(patience=1)) as origin,
    ):
        settings = node.settings("enforce", url)
        found = await find_reference(Reference.parse("org/model"), settings, node.cache, origin, node.heard.reporter)
    assert (found.metainfo, found.vouched_by) == (None, "signature alice")
    assert any("another torrent" in note for note in node.heard.notes)


@pytest.mark.parametrize("case", ["good", "unsigned", "changed"])
async def test_mirrors_and_seeders_keep_nothing_that_is_refused(tmp_path: Path, case: str) -> None:
    node = Signed(tmp_path, case)
    ref = Reference.parse("org/model")
    async with node.coordinator(torrent=False) as url, FakeHub(node.swarm.snapshot) as hub:
        mirrors = (MirrorSettings(name="m", endpoint=hub.url),)
        settings = node.settings("enforce", url).model_copy(update={"mirrors": mirrors})
        log = SyncLog(tmp_path / "log")
        sync = MirrorSync(settings, node.heard.reporter, lambda _: None, rules=Admission(), log=log)
        seeding = SeedRun(SeedRequest(ref), settings, node.heard.reporter)
        async with PullThrough(node.cache, settings, node.heard.reporter) as mirror:
            if case == "good":
                await sync.once([ref])
                assert (await mirror.manifest(ref)).commit == (await seeding.prepare([])).manifest.commit
                return
            for work in (lambda: sync.once([ref]), lambda: mirror.manifest(ref), lambda: seeding.prepare([])):
                with pytest.raises(Untrusted):
                    await work()
    assert node.cache.repo(ref.repo).resolve("main") is None
    assert not list(node.cache.root.glob("models--*/blobs/*"))


@pytest.mark.parametrize("case", ["good", "files alone", *BAD])
async def test_a_signature_over_the_torrent_itself_may_replace_the_hashes_of_files(tmp_path: Path, case: str) -> None:
    node = Signed(tmp_path, case)
    metainfo, statements = node.swarm.metainfo, node.statements()
    if case == "files alone":
        statements = [SignedStatement.by(read_signing_key(node.key), Statement.over(metainfo.manifest, "", NOW))]
    allowed = {}
    for mode in ("off", "warn", "enforce"):
        for file_hashes in ("always", "unless_signed"):
            settings = node.settings(mode)
            trust = settings.trust.model_copy(update={"file_hashes": file_hashes})
            check = SignatureCheck(settings.model_copy(update={"trust": trust}), node.heard.reporter)
            allowed[mode, file_hashes] = await check.replaces_hashes(metainfo, statements)
    assert {setting for setting, replaces in allowed.items() if replaces} == (
        {("enforce", "unless_signed")} if case == "good" else set()
    )


async def test_files_are_hashed_unless_the_settings_let_a_signature_replace_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Signed(tmp_path, "good")
    swarm, manifest = node.swarm, node.swarm.metainfo.manifest
    other = {path: bytes(byte ^ 1 for byte in data) for path, data in CONTENTS.items()}
    swarm.metainfo = parse(build(manifest, trees_of(other, swarm.metainfo.layout.piece_length), trackers=[TRACKER]))
    (torrent := tmp_path / "m.torrent").write_bytes(swarm.metainfo.raw)
    torrent.with_name(f"m.torrent{SUFFIX}").write_bytes(written(node.statements()))
    monkeypatch.setattr(job, "engine_of", lambda _settings: swarm.engine())
    settings = node.settings("enforce").model_copy(update={"swarm": without_mirrors(peer_timeout=0.1, stall_timeout=1)})
    unless = settings.trust.model_copy(update={"file_hashes": "unless_signed"})
    request = FetchRequest(TorrentTarget(str(torrent)), names=("main",))
    async with swarm.engine("127.0.0.2") as seeder:
        await swarm.seed(seeder, other)
        await Fetch(request, settings.model_copy(update={"trust": unless}), node.heard.reporter).run(lambda _: None)
        assert swarm.published() == other, "the files were hashed"
        elsewhere = settings.model_copy(update={"cache_dir": tmp_path / "elsewhere"})
        with pytest.raises(P2PModelError, match="but its manifest says"):
            await Fetch(request, elsewhere, node.heard.reporter).run(lambda _: None)
