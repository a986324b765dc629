"""Snapshots with files in the place of links: as huggingface_hub fills them, and as p2pmodel does."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.errors import IntegrityError, LocalResource, NoSpace, Unavailable
from p2pmodel.service.hub.published_snapshots import CHECKED_AT_ONCE, PublishedCache
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.eviction import make_room
from p2pmodel.store.file_links import FileLinks
from p2pmodel.store.publish import check_publish_space, publish_blob, publish_snapshot
from p2pmodel.store.snapshots import blob_places, snapshot_files
from p2pmodel.store.snapshots.removal import remove_snapshot
from p2pmodel.store.snapshots.snapshot_list import check_snapshot, is_visible, snapshots
from p2pmodel.store.verify import adoptable, verify
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish, stage

WEIGHTS = "model.safetensors"
CONTENTS = {
    "config.json": b'{"model_type": "tiny"}',
    "empty.txt": b"",
    WEIGHTS: bytes(range(256)) * 700,
    "copy/of.safetensors": bytes(range(256)) * 700,
}
SNAPSHOT = snapshot_of(CONTENTS)


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_places, "KEPT", 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub", tmp_path / "state")


@pytest.fixture
def repo(cache: HubCache) -> RepoCache:
    return cache.repo(SNAPSHOT.manifest.repo)


@pytest.fixture
def no_symlinks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refused(monkeypatch, "symlink", tmp_path / "hub")


@pytest.fixture
def no_links(no_symlinks: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refused(monkeypatch, "link", tmp_path / "hub")


def refused(monkeypatch: pytest.MonkeyPatch, call: str, below: Path) -> None:
    """Let the file system at `below` have no such links."""
    real: Callable[..., None] = getattr(os, call)

    def refuse(source: str, target: str | Path, *more: bool, **where: int) -> None:
        folder = where.get("dir_fd", where.get("dst_dir_fd"))
        place = Path(f"/proc/self/fd/{folder}" if folder is not None else target).resolve()
        if place.is_relative_to(below):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(target))
        real(source, target, *more, **where)

    monkeypatch.setattr(os, call, refuse)


def filled_by_the_hub(repo: RepoCache) -> Manifest:
    """As huggingface_hub does without symlinks: a blob moves into the snapshot, a second path gets a copy."""
    filling = HubCache(repo.cache.root).repo(repo.repo)
    manifest = publish(filling.cache, SNAPSHOT)
    for file in manifest.files:
        shown = entry(repo, file.path)
        shown.unlink()
        shown.write_bytes(CONTENTS[file.path])
    shutil.rmtree(repo.folder / "blobs")
    shutil.rmtree(filling.private.resolve())
    return manifest


def file_of(manifest: Manifest, path: str) -> ManifestFile:
    return next(file for file in manifest.files if file.path == path)


def entry(repo: RepoCache, path: str) -> Path:
    return repo.snapshot(SNAPSHOT.manifest.commit) / path


def contents(repo: RepoCache) -> dict[str, bytes]:
    return {path: entry(repo, path).read_bytes() for path in CONTENTS}


def damage(path: Path) -> None:
    """Other bytes of the same length."""
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


# -- filled by huggingface_hub -------------------------------------------------------------------------------


def test_such_a_snapshot_is_complete_and_right(repo: RepoCache) -> None:
    manifest = filled_by_the_hub(repo)
    [held] = snapshots(repo.cache)
    assert (held.missing, held.doubted) == ((), ())
    assert repo.lacking(manifest.files) == []
    assert is_visible(repo, manifest.commit, manifest.files)
    assert verify(repo, manifest).whole
    assert all(repo.is_verified(file) for file in manifest.files)
    assert repo.etags() == {file.etag for file in manifest.files}


def test_nothing_is_published_or_replaced_for_it(repo: RepoCache) -> None:
    manifest = filled_by_the_hub(repo)
    before = {path: entry(repo, path).stat().st_ino for path in CONTENTS}
    for file in manifest.files:
        assert adoptable(repo, file) is not None
    publish_snapshot(repo, manifest, manifest.files, ["main"])
    assert {path: entry(repo, path).lstat().st_ino for path in CONTENTS} == before
    assert contents(repo) == CONTENTS


def test_without_a_list_on_record_a_mirrors_list_tells_what_the_files_are(repo: RepoCache) -> None:
    manifest = filled_by_the_hub(repo)
    shutil.rmtree(repo.folder / "trees")
    assert repo.manifest(manifest.commit) is None
    assert repo.lacking(manifest.files) == list(manifest.files)
    repo.places.plain.know(manifest)
    assert repo.lacking(manifest.files) == []


@pytest.mark.parametrize("path", [WEIGHTS, "copy/of.safetensors"])
def test_a_damaged_file_is_found_and_replaced(repo: RepoCache, path: str) -> None:
    manifest = filled_by_the_hub(repo)
    damage(entry(repo, path))
    report = verify(repo, manifest)
    assert [file.path for file in report.corrupt + report.missing] == [path]
    assert not check_snapshot(repo, manifest.commit, manifest.files).sound
    file = file_of(manifest, path)
    if adoptable(repo, file) is None:
        publish_blob(repo, file, stage(repo, manifest, file, CONTENTS[path]))
    publish_snapshot(repo, manifest, manifest.files)
    assert contents(repo) == CONTENTS
    assert check_snapshot(repo, manifest.commit, manifest.files).sound
    assert verify(repo, manifest).whole


def test_a_file_that_changed_after_it_was_verified_is_in_doubt(repo: RepoCache) -> None:
    manifest = filled_by_the_hub(repo)
    assert verify(repo, manifest).whole
    damage(entry(repo, "config.json"))
    assert check_snapshot(repo, manifest.commit, manifest.files).changed == ("config.json",)


def test_only_what_was_verified_is_served(repo: RepoCache) -> None:
    manifest = filled_by_the_hub(repo)
    damage(entry(repo, "config.json"))
    [weights, config] = (file_of(manifest, path) for path in (WEIGHTS, "config.json"))
    published = PublishedCache(repo.cache).snapshot(str(repo.repo))
    with published.open(weights) as opened:
        assert opened.read() == CONTENTS[WEIGHTS]
    with pytest.raises(Unavailable, match="is damaged"):
        published.open(config)
    with pytest.raises(Unavailable, match="is damaged"):
        published.open(config)


def test_a_large_file_is_served_once_the_background_check_has_read_it(
    repo: RepoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pmodel.service.hub.published_snapshots.CHECKED_AT_ONCE", 1000)
    assert CHECKED_AT_ONCE > 1000
    manifest = filled_by_the_hub(repo)
    weights = file_of(manifest, WEIGHTS)
    published = PublishedCache(repo.cache).snapshot(str(repo.repo))
    with pytest.raises(Unavailable, match="is not verified yet"):
        published.open(weights)
    assert adoptable(repo, weights)
    published.open(weights).close()


def test_the_engine_reads_it(repo: RepoCache) -> None:
    manifest = filled_by_the_hub(repo)
    links = FileLinks.to(repo, [(file, None) for file in manifest.files])
    try:
        assert [links.path(i).read_bytes() for i in range(4)] == [CONTENTS[file.path] for file in manifest.files]
    finally:
        links.remove()


def test_what_another_user_puts_in_the_place_of_a_file_is_not_followed(repo: RepoCache, tmp_path: Path) -> None:
    manifest = filled_by_the_hub(repo)
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENTS["config.json"])
    entry(repo, "config.json").unlink()
    entry(repo, "config.json").symlink_to(secret)
    config = file_of(manifest, "config.json")
    assert repo.blob(config) is None
    with pytest.raises(OSError, match="No such file"):
        repo.open_blob(config)


def test_it_is_removed_with_its_bytes(repo: RepoCache) -> None:
    manifest = filled_by_the_hub(repo)
    freed = remove_snapshot(repo, manifest.commit)
    assert freed >= 2 * len(CONTENTS[WEIGHTS])
    assert not repo.folder.exists()


# -- filled by p2pmodel --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_symlinks")
def test_without_symlinks_a_blob_gets_a_second_name(repo: RepoCache) -> None:
    manifest = publish(repo.cache, SNAPSHOT)
    assert contents(repo) == CONTENTS
    blob = repo.blob_path(file_of(manifest, WEIGHTS))
    assert entry(repo, WEIGHTS).samefile(blob)
    assert not entry(repo, WEIGHTS).is_symlink()
    assert all(repo.is_verified(file) for file in manifest.files)
    assert check_snapshot(repo, manifest.commit, manifest.files).sound
    assert verify(repo, manifest).whole
    assert list((repo.private / "tmp").iterdir()) == []
    again = snapshot_of({WEIGHTS: CONTENTS[WEIGHTS], "new.txt": b"new"})
    publish(repo.cache, again)
    assert (repo.snapshot(again.manifest.commit) / WEIGHTS).samefile(blob)
    assert remove_snapshot(repo, manifest.commit) < len(CONTENTS[WEIGHTS])
    assert (repo.snapshot(again.manifest.commit) / WEIGHTS).read_bytes() == CONTENTS[WEIGHTS]


@pytest.mark.usefixtures("no_links")
def test_without_any_links_a_blob_moves_and_further_paths_get_copies(repo: RepoCache) -> None:
    manifest = publish(repo.cache, SNAPSHOT)
    assert contents(repo) == CONTENTS
    assert list((repo.folder / "blobs").iterdir()) == []
    assert all(repo.is_verified(file) for file in manifest.files)
    assert check_snapshot(repo, manifest.commit, manifest.files).sound
    assert verify(repo, manifest).whole
    publish_snapshot(repo, manifest, manifest.files, ["v1"])
    again = snapshot_of({WEIGHTS: CONTENTS[WEIGHTS], "new.txt": b"new"})
    publish(repo.cache, again)
    assert (repo.snapshot(again.manifest.commit) / WEIGHTS).read_bytes() == CONTENTS[WEIGHTS]
    assert contents(repo) == CONTENTS
    remove_snapshot(repo, manifest.commit)
    assert verify(repo, again.manifest).whole


@pytest.mark.usefixtures("no_links")
def test_a_copy_with_other_bytes_gets_no_name(repo: RepoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_files.shutil, "copyfileobj", lambda _from, copy, _size: copy.write(bytes(179_200)))
    with pytest.raises(IntegrityError, match=r"a copy of .* differs"):
        publish(repo.cache, SNAPSHOT)
    shown = [path for path in repo.snapshot(SNAPSHOT.manifest.commit).rglob("*.safetensors*") if path.is_file()]
    assert len(shown) == 1
    assert shown[0].read_bytes() == CONTENTS[WEIGHTS]


@pytest.mark.usefixtures("no_links")
def test_copies_are_counted_before_the_transfer(repo: RepoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(CONTENTS[WEIGHTS])
    monkeypatch.setattr("p2pmodel.store.files.space.free_bytes", lambda _folder: 2 * size - 1)
    check_publish_space(repo, size)
    with pytest.raises(NoSpace):
        check_publish_space(repo, size, SNAPSHOT.manifest.files)


@pytest.mark.usefixtures("no_links")
def test_the_links_of_the_engine_lie_in_the_state_folder(repo: RepoCache, tmp_path: Path) -> None:
    manifest = publish(repo.cache, SNAPSHOT)
    links = FileLinks.to(repo, [(file, None) for file in manifest.files])
    try:
        assert [links.path(i).read_bytes() for i in range(4)] == [CONTENTS[file.path] for file in manifest.files]
        assert list((tmp_path / "state").rglob("links/*"))
    finally:
        links.remove()


@pytest.mark.usefixtures("no_symlinks")
def test_without_any_place_for_links_the_engine_is_refused_with_what_to_do(tmp_path: Path) -> None:
    repo = HubCache(tmp_path / "hub").repo(SNAPSHOT.manifest.repo)
    publish(repo.cache, SNAPSHOT)
    with pytest.raises(
        LocalResource, match=r"has symlinks, which the engine needs.*set state_dir to a folder on a local"
    ):
        FileLinks(repo)


@pytest.mark.usefixtures("no_links")
def test_what_a_mirror_has_pulled_is_evicted(repo: RepoCache) -> None:
    manifest = publish(repo.cache, SNAPSHOT)
    repo.served.set(file_of(manifest, WEIGHTS))
    evicted = make_room(repo.cache, 1000, {}, lambda _key: False)
    assert {etag for _, etag, _ in evicted} == {file_of(manifest, WEIGHTS).etag}
    assert not entry(repo, WEIGHTS).exists()
    assert entry(repo, "config.json").exists()
