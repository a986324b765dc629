"""Links for the engine: turned in one step, and safe from what other users do with the blobs."""

import os
from pathlib import Path

import pytest

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import LocalResource
from p2pmodel.store import file_links as module
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.file_links import FileLinks
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import CONTENTS, move_to_shared_store, publish

WEIGHTS = "model-00001.safetensors"


@pytest.fixture
def repo(tmp_path: Path) -> RepoCache:
    return HubCache(tmp_path / "hub").repo(RepoId("org/model"))


@pytest.fixture
def file() -> ManifestFile:
    return snapshot_of(CONTENTS).file(WEIGHTS)


def test_a_staged_file_is_made_through_its_link_and_held_while_it_moves(repo: RepoCache, tmp_path: Path) -> None:
    links = FileLinks(repo)
    links.lead_to(0, tmp_path / "staged")
    links.path(0).write_bytes(b"content")
    assert (tmp_path / "staged").read_bytes() == b"content"
    links.hold(0, tmp_path / "staged")
    (tmp_path / "staged").rename(tmp_path / "moved")
    assert links.path(0).read_bytes() == b"content"
    links.lead_to(0, tmp_path / "moved")
    assert links.path(0).read_bytes() == b"content"
    links.remove()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_follows_a_link_while_it_is_turned_finds_the_file(repo: RepoCache, tmp_path: Path) -> None:
    (tmp_path / "staged").write_bytes(b"content")
    links = FileLinks(repo)
    before = open_files()
    links.hold(0, tmp_path / "staged")
    target = links.path(0).readlink()  # as the kernel has read it when the link is turned
    links.lead_to(0, tmp_path / "staged")
    assert target.read_bytes() == b"content"
    for _ in range(2 * module.KEPT_OPEN):
        links.hold(0, tmp_path / "staged")
    assert open_files() <= before + module.KEPT_OPEN + 1
    links.remove()
    assert open_files() <= before


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_link_in_the_place_of_a_blob_is_not_followed_where_others_may_make_it(
    repo: RepoCache, file: ManifestFile, tmp_path: Path, mode: int
) -> None:
    publish(repo.cache)
    blob = repo.blob_path(file)
    blob.parent.chmod(mode)
    links = FileLinks(repo)
    links.lead_to_blob(0, file)
    assert links.path(0).read_bytes() == CONTENTS[WEIGHTS]
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    blob.unlink()
    blob.symlink_to(secret)
    served = links.path(0).read_bytes()
    assert served == (CONTENTS[WEIGHTS] if mode == 0o777 else b"secret")
    links.remove()


def test_a_blob_in_the_shared_store_is_held(repo: RepoCache, file: ManifestFile) -> None:
    publish(repo.cache)
    payload = move_to_shared_store(repo, file)
    links = FileLinks(repo)
    links.lead_to_blob(0, file)
    payload.unlink()
    assert links.path(0).read_bytes() == CONTENTS[WEIGHTS]
    links.remove()


def test_a_blob_that_is_no_file_is_refused(repo: RepoCache, file: ManifestFile, tmp_path: Path) -> None:
    publish(repo.cache)
    repo.blob_path(file).unlink()
    repo.blob_path(file).symlink_to(tmp_path / "secret")
    links = FileLinks(repo)
    with pytest.raises(LocalResource, match="a link that leaves the cache"):
        links.lead_to_blob(0, file)
    links.remove()


def test_nothing_is_left_of_it_and_of_killed_ones(repo: RepoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = repo.made_private / "links"
    (folder / "killed").mkdir(parents=True)
    (folder / "killed" / "0").symlink_to("/proc/self/fd/99/x")
    other = FileLinks(repo)
    assert (folder / "killed").exists(), "it may be of a process that starts"
    monkeypatch.setattr(module, "YOUNG", 0.0)
    links = FileLinks(repo)
    links.lead_to(0, Path("/nowhere"))
    assert len(list(folder.iterdir())) == 2, "those in use stay"
    links.remove()
    other.remove()
    assert list(folder.iterdir()) == []
    assert not [name for name in os.listdir("/proc/self/fd") if "links" in _target(name)]  # noqa: PTH208


def _target(name: str) -> str:
    try:
        return str(Path("/proc/self/fd", name).readlink())
    except OSError:
        return ""
