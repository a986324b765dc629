"""Bundles between two caches: what arrives, what is refused, and where an import continues."""

from pathlib import Path

import pytest

from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.sections.trust import ContentRule, ContentSettings, TrustSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import EntryNotFound, IntegrityError, InvalidInput, RefusedContent, Unconfirmed, Untrusted
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.target import read_torrent_file
from p2pmodel.node.snapshot.torrents.bundle import BundleImport, ImportedBundle, export_bundle
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.torrents import parse
from tests.support.node_swarm import CONTENTS
from tests.support.stored import publish
from tests.unit.node.snapshot.evidence.test_signature_check import Signed

pytestmark = pytest.mark.needs("ssh-keygen")


class Machines:
    """A machine that exports, which may sign, and one that imports and reaches nothing."""

    def __init__(self, root: Path) -> None:
        self.signed = Signed(root, "good")
        self.manifest = self.signed.swarm.snapshot.manifest
        self.bundle = root / "b.tar"
        self.here, self.there = HubCache(root / "here"), HubCache(root / "there")
        publish(self.here, self.signed.swarm.snapshot)

    async def export(self, *, signs: bool = True, with_files: bool = True) -> Path:
        trust = TrustSettings(signing_key=self.signed.key if signs else None)
        root = self.signed.root
        settings = Settings(cache_dir=self.here.root, mirrors=(), state_dir=root / "state-here", trust=trust)
        await export_bundle(self.manifest, settings, self.bundle, Reporter(), with_files=with_files)
        return self.bundle

    def importing(
        self, mode: str = "enforce", *names: str, word: str = "mirrors", contents: ContentSettings | None = None
    ) -> BundleImport:
        settings = self.signed.settings(mode).model_copy(
            update={
                "cache_dir": self.there.root,
                "offline": True,
                "swarm": SwarmSettings(trust=word),
                "contents": contents or ContentSettings(),
            }
        )
        return BundleImport(self.bundle, settings, self.signed.heard.reporter, names=names)

    def arrived(self) -> dict[str, bytes]:
        """The contents of `main` on the machine that imports; empty without one."""
        repo = self.there.repo(RepoId("org/model"))
        commit = repo.resolve("main")
        folder = repo.snapshot(commit) if commit else None
        return {name: (folder / name).read_bytes() for name in CONTENTS} if folder else {}

    def is_empty(self) -> bool:
        return not [p for p in self.there.root.glob("models--*/*/**/*") if p.is_file() and ".p2pmodel" not in p.parts]


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


async def test_a_signed_bundle_arrives_where_nothing_is_reached(machines: Machines) -> None:
    await machines.export()
    done = await machines.importing().run()
    assert isinstance(done, ImportedBundle)
    assert (done.vouched_by, done.refs, machines.arrived()) == ("signature alice", ("main",), dict(CONTENTS))
    again = await machines.importing("enforce", "v1").run()
    assert again.refs == ("v1",)
    assert machines.there.repo(RepoId("org/model")).resolve("v1") == machines.manifest.commit


async def test_an_unsigned_bundle_needs_another_voucher(machines: Machines) -> None:
    await machines.export(signs=False)
    with pytest.raises(Untrusted, match="not signed"):
        await machines.importing().run()
    with pytest.raises(Unconfirmed):
        await machines.importing("off").run()
    assert machines.is_empty()
    done = await machines.importing("off", word="coordinator").run()
    assert (done.vouched_by, machines.arrived()) == ("coordinator", dict(CONTENTS))


async def test_an_import_continues_after_an_archive_that_was_cut_off(machines: Machines) -> None:
    whole = (await machines.export()).read_bytes()
    staged: list[int] = []
    for share in (0.3, 0.6, 0.97):
        machines.bundle.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(IntegrityError, match="run the same command again"):
            await machines.importing().run()
        assert machines.arrived() == {}
        repo = machines.there.repo(RepoId("org/model"))
        lacking = {file.etag: file.size for file in repo.lacking(machines.manifest.files)}
        staged.append(sum(lacking.values()) - repo.staged.size_of(machines.manifest.files))
    assert staged[0] > staged[2]
    machines.bundle.write_bytes(whole)
    await machines.importing().run()
    assert machines.arrived() == dict(CONTENTS)


async def test_changed_bytes_of_a_file_get_no_name(machines: Machines) -> None:
    whole = (await machines.export()).read_bytes()
    at = whole.index(b"other" * 100)
    machines.bundle.write_bytes(whole[:at] + b"O" + whole[at + 1 :])
    with pytest.raises(IntegrityError, match=r"nested/other\.bin in the bundle is damaged"):
        await machines.importing().run()
    assert machines.arrived() == {}
    machines.bundle.write_bytes(whole)
    await machines.importing().run()
    assert machines.arrived() == dict(CONTENTS)


async def test_the_policy_on_contents_holds_for_a_bundle(machines: Machines) -> None:
    await machines.export()
    rule = ContentRule(repos=("*",), refused_files=("*.bin",))
    with pytest.raises(RefusedContent, match=r"nested/other\.bin"):
        await machines.importing(contents=ContentSettings(rules=(rule,))).run()
    assert machines.is_empty()


async def test_without_files_it_is_a_torrent_with_its_signatures(machines: Machines) -> None:
    bundle = await machines.export(with_files=False)
    raw, signatures = read_torrent_file(bundle)
    assert parse(raw).manifest == machines.manifest
    assert [each.parsed().info_hash for each in signatures] == [parse(raw).info_hash]
    with pytest.raises(InvalidInput, match="p2pmodel fetch"):
        await machines.importing().run()
    again = bundle.read_bytes()
    assert (await machines.export(with_files=False)).read_bytes() == again


async def test_an_incomplete_snapshot_is_not_exported(machines: Machines) -> None:
    repo = machines.here.repo(RepoId("org/model"))
    blob = repo.blob(machines.manifest.files[0])
    assert blob is not None
    blob.unlink()
    with pytest.raises(EntryNotFound, match=r"config\.json of org/model@\w+ is not in the cache"):
        await machines.export()
    assert not machines.bundle.exists()
