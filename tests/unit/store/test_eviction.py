"""Which files are evicted when a cache must shrink, in which order, and what a reader finds during an eviction."""

import os
import random
from pathlib import Path

import pytest

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.errors import NoSpace, Unavailable
from p2pmodel.store.cache import BlobKey, HubCache, RepoCache
from p2pmodel.store.eviction import make_room
from p2pmodel.store.files.folder import Folder
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.stored import move_to_shared_store, publish, stage

OLD = snapshot_of({"a/same.bin": b"s" * 100, "gone.bin": b"g" * 100})
NEW = snapshot_of({"a/same.bin": b"s" * 100, "new.bin": b"n" * 100})


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


def pulled(cache: HubCache, snapshot: HubSnapshot, *, at: float, refs: tuple[str, ...] = ("main",)) -> Manifest:
    """Publish `snapshot` as a mirror pulled and served it at `at`."""
    manifest = publish(cache, snapshot, refs=refs)
    repo = cache.repo(manifest.repo)
    for file in manifest.files:
        repo.served.set(file)
        os.utime(repo.private / "last-served" / file.etag, (at, at))
    return manifest


def make(
    cache: HubCache, budget: int, growing: dict[BlobKey, int] | None = None, used: set[BlobKey] | None = None
) -> int:
    kept = used or set()
    return sum(size for _, _, size in make_room(cache, budget, growing or {}, lambda key: key in kept))


def held(repo: RepoCache) -> set[str]:
    """Every file that a snapshot contains; each must be present."""
    found = set()
    for commit in repo.commits():
        for path in repo.snapshot(commit).rglob("*"):
            if not path.is_dir():
                assert path.read_bytes(), path
                found.add(path.name)
    assert all(repo.snapshot(commit).is_dir() for commit in repo.refs().values()), "a ref without its snapshot"
    return found


def test_no_file_is_evicted_within_the_budget(cache: HubCache) -> None:
    pulled(cache, OLD, at=1)
    assert make(cache, 200) == 0
    assert held(cache.repo(OLD.manifest.repo)) == {"same.bin", "gone.bin"}


def test_the_oldest_file_is_evicted_and_ref_and_snapshot_with_the_last_file(cache: HubCache) -> None:
    pulled(cache, OLD, at=1, refs=("v1",))
    pulled(cache, NEW, at=2)
    repo = cache.repo(OLD.manifest.repo)
    assert make(cache, 299) == 100
    assert held(repo) == {"same.bin", "new.bin"}
    assert repo.refs() == {"main": NEW.commit, "v1": OLD.commit}
    os.utime(repo.private / "last-served" / NEW.file("new.bin").etag, (3, 3))
    assert make(cache, 199) == 100
    assert held(repo) == {"new.bin"}
    assert repo.refs() == {"main": NEW.commit}
    assert repo.commits() == [NEW.commit]
    assert [p.name for p in (repo.folder / "trees").iterdir()] == [f"{NEW.commit}.json"]
    assert make(cache, 0) == 100
    assert cache.repos() == []


def test_a_file_that_is_served_again_stays(cache: HubCache) -> None:
    pulled(cache, OLD, at=1)
    repo = cache.repo(OLD.manifest.repo)
    repo.served.renew(OLD.file("gone.bin"))
    make(cache, 100)
    assert held(repo) == {"gone.bin"}


def test_files_not_pulled_by_a_mirror_stay_and_count(cache: HubCache) -> None:
    publish(cache, OLD)
    cache.repo(OLD.manifest.repo).served.renew(OLD.file("gone.bin"))
    with pytest.raises(NoSpace, match="200 bytes must stay"):
        make(cache, 199)
    assert held(cache.repo(OLD.manifest.repo)) == {"same.bin", "gone.bin"}


def test_files_in_use_stay_and_a_failed_eviction_removes_no_file(cache: HubCache) -> None:
    pulled(cache, OLD, at=1)
    repo = cache.repo(OLD.manifest.repo)
    used = {(repo.repo, OLD.file("gone.bin").etag)}
    with pytest.raises(Unavailable, match="being served"):
        make(cache, 99, used=used)
    assert held(repo) == {"same.bin", "gone.bin"}
    assert make(cache, 100, used=used) == 100
    assert held(repo) == {"gone.bin"}


def test_a_growing_file_counts_with_its_full_size(cache: HubCache) -> None:
    pulled(cache, OLD, at=1)
    repo = cache.repo(OLD.manifest.repo)
    growing = NEW.file("new.bin")
    path = repo.staged.path_of(growing)
    path.write_bytes(b"n" * 10)
    assert make(cache, 299, {(repo.repo, growing.etag): 100}) == 100
    assert path.exists()


def test_an_abandoned_pull_is_evicted_in_its_turn(cache: HubCache) -> None:
    pulled(cache, OLD, at=10**10)
    repo = cache.repo(OLD.manifest.repo)
    path = repo.staged.path_of(NEW.file("new.bin"))
    path.write_bytes(b"n" * 100)
    record = path.with_name(f"{path.name}.ranges")
    record.touch()
    assert make(cache, 200) >= 100
    assert not path.exists()
    assert not record.exists()
    assert held(repo) == {"same.bin", "gone.bin"}


def test_an_unfinished_file_that_another_process_writes_stays(cache: HubCache) -> None:
    pulled(cache, OLD, at=10**10)
    repo = cache.repo(OLD.manifest.repo)
    path = stage(repo, NEW.manifest, NEW.file("new.bin"), b"n" * 100)
    owned = repo.staged.claim([NEW.file("new.bin")])
    assert owned is not None
    assert make(cache, 4096 + 100) == 100, "it counts"
    assert path.exists()
    owned.release()


def test_the_hubs_shared_store_is_not_ours(cache: HubCache) -> None:
    manifest = pulled(cache, OLD, at=1)
    repo = cache.repo(manifest.repo)
    payload = move_to_shared_store(repo, OLD.file("gone.bin"))
    assert make(cache, 0) == 100
    assert payload.exists()
    assert held(repo) == {"gone.bin"}


def test_a_reader_never_finds_half_of_it_gone(cache: HubCache, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled(cache, OLD, at=1, refs=("v1",))
    pulled(cache, NEW, at=2)
    repo = cache.repo(OLD.manifest.repo)
    seen = 0
    remove = Folder.remove

    def watched(folder: Folder, name: str) -> None:
        nonlocal seen
        held(repo)
        seen += 1
        remove(folder, name)
        held(repo)

    monkeypatch.setattr(Folder, "remove", watched)
    make(cache, 0)
    assert seen > 6


def test_any_history_stays_within_the_bound(cache: HubCache) -> None:
    order = random.Random(7)
    names = [f"{n}.bin" for n in range(12)]
    for step in range(40):
        chosen = order.sample(names, 3)
        snapshot = snapshot_of({n: n.encode() * order.choice([10, 11]) for n in chosen}, repo=f"org/r{step % 3}")
        pulled(cache, snapshot, at=step)
        make(cache, 400)
        repos = [cache.repo(repo) for repo in cache.repos()]
        blobs = [p for repo in repos for p in (repo.folder / "blobs").iterdir()]
        assert sum(p.stat().st_size for p in blobs) <= 400
        assert all(held(repo) for repo in repos)
