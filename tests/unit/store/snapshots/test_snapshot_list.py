"""What is here of snapshots of which the download has not ended: it is listed, named and removed."""

from pathlib import Path

import pytest

from p2pmodel.errors import InvalidInput, NotFound
from p2pmodel.node.snapshot.cache_views import listed
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.publish import publish_blob
from p2pmodel.store.snapshots.removal import remove_snapshot
from p2pmodel.store.snapshots.snapshot_list import find_commit
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish, stage

WEIGHTS = b"w" * 50_000
OLD = snapshot_of({"README.md": b"old", "model.bin": WEIGHTS})
NEW = snapshot_of({"README.md": b"new", "model.bin": WEIGHTS, "extra.bin": b"e" * 9000})
MODEL = OLD.file("model.bin")


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


@pytest.fixture
def repo(cache: HubCache) -> RepoCache:
    return cache.repo(OLD.manifest.repo)


def begin(repo: RepoCache, snapshot=OLD, refs=("main",)) -> None:
    """As an interrupted download leaves it: one file published, the other one begun."""
    repo.staging(snapshot.commit).begin(snapshot.manifest, refs)
    readme = snapshot.file("README.md")
    publish_blob(repo, readme, stage(repo, snapshot.manifest, readme, bytes(snapshot.contents["README.md"])))
    stage(repo, snapshot.manifest, MODEL, WEIGHTS[:20_000])


def rows(cache: HubCache) -> list[tuple[str, tuple[str, ...], bool]]:
    return [(view.commit, view.revisions, view.partial) for view in listed(cache)]


def test_an_interrupted_download_is_listed_with_its_bytes_and_its_name(cache: HubCache, repo: RepoCache) -> None:
    begin(repo)
    [view] = listed(cache)
    assert (view.commit, view.revisions, view.partial, view.missing) == (OLD.commit, ("main",), True, 1)
    assert 20_000 <= view.staged < view.held <= view.staged + 3
    assert find_commit(repo, "main") == find_commit(repo, OLD.commit) == find_commit(repo, OLD.commit[:7]) == OLD.commit


def test_removing_it_leaves_nothing(cache: HubCache, repo: RepoCache) -> None:
    begin(repo)
    assert remove_snapshot(repo, OLD.commit) > 20_000
    assert not repo.folder.exists()
    assert listed(cache) == []
    with pytest.raises(NotFound):
        remove_snapshot(repo, OLD.commit)


def test_what_another_begun_download_needs_stays_until_that_one_goes(cache: HubCache, repo: RepoCache) -> None:
    begin(repo)
    begin(repo, NEW)
    with pytest.raises(InvalidInput, match=f"ambiguous.*{min(OLD.commit, NEW.commit)}"):
        find_commit(repo, "main")
    remove_snapshot(repo, OLD.commit)
    assert repo.staged.held().keys() == {MODEL.etag}
    assert repo.blob(OLD.file("README.md")) is None
    assert rows(cache) == [(NEW.commit, ("main",), True)]
    remove_snapshot(repo, NEW.commit)
    assert not repo.folder.exists()


def test_what_an_incomplete_snapshot_has_begun_belongs_to_its_row(cache: HubCache, repo: RepoCache) -> None:
    publish(cache, NEW, paths=["README.md"])
    stage(repo, NEW.manifest, MODEL, WEIGHTS[:20_000])
    [view] = listed(cache)
    assert (view.commit, view.missing, view.partial) == (NEW.commit, 2, False)
    assert view.staged >= 20_000
    remove_snapshot(repo, NEW.commit)
    assert not repo.folder.exists()


def test_what_a_mirror_began_to_download_is_listed_without_a_mark(cache: HubCache, repo: RepoCache) -> None:
    stage(repo, OLD.manifest, MODEL, WEIGHTS[:20_000])
    assert rows(cache) == [(OLD.commit, (), True)]
    remove_snapshot(repo, OLD.commit)
    assert not repo.folder.exists()


def test_a_name_that_points_elsewhere_by_now_is_not_shown(cache: HubCache, repo: RepoCache) -> None:
    begin(repo)
    publish(cache, NEW)
    assert (OLD.commit, (), True) in rows(cache)
    assert find_commit(repo, "main") == NEW.commit


def test_a_complete_snapshot_is_not_partial(cache: HubCache, repo: RepoCache) -> None:
    publish(cache, NEW)
    [view] = listed(cache)
    assert (view.partial, view.staged, view.held) == (False, 0, view.size)
    assert find_commit(repo, NEW.commit[:12]) == NEW.commit
    assert find_commit(repo, NEW.commit[:6]) is None, "as few digits may be a name"
    assert find_commit(repo, "0" * 7) is None


def test_several_commits_that_begin_alike_are_named(repo: RepoCache) -> None:
    twins = ["abcdef0" + digit * 33 for digit in "12"]
    for commit in twins:
        (repo.folder / "snapshots" / commit).mkdir(parents=True)
    with pytest.raises(InvalidInput, match=f"ambiguous.*{twins[0]}, {twins[1]}; write more digits"):
        find_commit(repo, "abcdef0")
    assert find_commit(repo, "abcdef01") == twins[0]
