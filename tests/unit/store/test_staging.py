"""Staging: names, piece records that survive a restart of the process, and a clean end."""

import json
import os
from pathlib import Path

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.core.files import private_files
from p2pmodel.errors import LocalResource
from p2pmodel.store import staging as module
from p2pmodel.store.cache import HubCache
from p2pmodel.store.staging import Staging
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS

MANIFEST = snapshot_of(CONTENTS).manifest
HASH = "ab" * 32


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return HubCache(tmp_path).repo(RepoId("org/model")).staging(MANIFEST.commit)


def test_paths_are_distinct_private_and_not_those_the_hub_prunes(staging: Staging, tmp_path: Path) -> None:
    twin = MANIFEST.files[0]
    paths = [staging.path_of(i, twin) for i in range(3)]
    assert len(set(paths)) == 3
    assert paths[0] == staging.path_of(0, twin)
    for path in paths:
        assert path.parent.is_dir()
        assert path.resolve().is_relative_to(tmp_path / "models--org--model" / ".p2pmodel")
        assert not path.name.endswith(".incomplete")


def test_a_record_of_pieces_is_restored(staging: Staging) -> None:
    assert staging.load_have(HASH) is None
    staging.save_have(HASH, b"\xf0\x01")
    assert staging.load_have(HASH) == b"\xf0\x01"
    assert staging.load_have("cd" * 32) is None
    staging.save_have(HASH, b"\xff\x01")
    assert staging.load_have(HASH) == b"\xff\x01"


def test_after_a_new_start_of_the_machine_pieces_are_checked_again(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.save_have(HASH, b"\xf0")
    monkeypatch.setattr(module, "boot_id", lambda: "another boot")
    assert staging.load_have(HASH) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"have": "zz"}', b'{"have": 1}', b"\xff"])
def test_a_damaged_record_is_none(staging: Staging, damage: bytes) -> None:
    staging.save_have(HASH, b"\xf0")
    path = staging.path_of(0, MANIFEST.files[0]).parent / f"{HASH}.have"
    boot = json.loads(path.read_bytes())["boot"]
    path.write_bytes(damage.replace(b"{", b'{"boot": "%s", ' % boot.encode()) if damage.endswith(b"}") else damage)
    assert staging.load_have(HASH) is None


def test_clearing_leaves_the_torrent_and_the_lock(staging: Staging) -> None:
    assert staging.load_metainfo() is None
    staging.clear()
    staging.save_metainfo(b"d4:infod")
    staging.save_have(HASH, b"\xf0")
    staged = staging.path_of(0, MANIFEST.files[0])
    staged.write_bytes(b"x")
    lock = staging.lock_path()
    lock.touch()
    staging.clear()
    assert not staged.exists()
    assert staging.load_have(HASH) is None
    assert staging.load_metainfo() == b"d4:infod"
    assert lock.exists()
    assert staging.path_of(0, MANIFEST.files[0]).parent.is_dir()


def test_files_in_place_of_the_folder_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "models--org--model").mkdir()
    for name in (".p2pmodel", f".p2pmodel-{os.geteuid()}"):
        (tmp_path / "models--org--model" / name).write_text("oops")
    staging = HubCache(tmp_path).repo(RepoId("org/model")).staging(MANIFEST.commit)
    with pytest.raises(LocalResource, match=r"/\.p2pmodel: Not a directory"):
        staging.path_of(0, MANIFEST.files[0])
    with pytest.raises(LocalResource, match=r"/\.p2pmodel: Not a directory"):
        staging.save_have(HASH, b"")
    with pytest.raises(LocalResource, match=r"/\.p2pmodel: Not a directory"):
        staging.save_metainfo(b"")
    staging.clear()
    assert staging.load_have(HASH) is None
    assert staging.load_metainfo() is None


def test_what_killed_processes_left_is_removed_with_the_next_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = HubCache(tmp_path).repo(RepoId("org/model"))
    staging = repo.staging(MANIFEST.commit)
    for after, stays in ((3600.0, True), (-1.0, False)):
        monkeypatch.setattr(private_files, "LEFTOVER_AFTER", after)
        repo.tmp.mkdir(exist_ok=True)
        left = repo.tmp / "123-abc"
        left.touch()
        staging.lock_path()
        assert left.exists() == stays
