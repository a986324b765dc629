"""Published snapshots: which stay in memory between requests, and for how long."""

from pathlib import Path

import pytest

from p2pmodel.errors import RepoNotFound, RevisionNotFound
from p2pmodel.service.hub.published_snapshots import PublishedCache
from p2pmodel.store.cache import HubCache
from tests.support.hub_layout import write_snapshot


def test_a_list_that_grows_is_read_again_after_a_while(tmp_path: Path) -> None:
    now = [0.0]
    published = PublishedCache(HubCache(tmp_path), clock=lambda: now[0])
    first = write_snapshot(tmp_path, "org/m", {"a": b"1"}, tree=False)
    assert set(published.snapshot("org/m").files) == {"a"}
    write_snapshot(tmp_path, "org/m", {"a": b"1", "b": b"2"}, tree=False, commit=first.commit)
    now[0] += 1
    assert set(published.snapshot("org/m").files) == {"a"}
    now[0] += 5
    assert set(published.snapshot("org/m", first.commit).files) == {"a", "b"}


def test_recent_snapshots_need_no_disk(tmp_path: Path) -> None:
    now = [0.0]
    published = PublishedCache(HubCache(tmp_path), clock=lambda: now[0])
    commit = write_snapshot(tmp_path, "org/m", {"a": b"1"}).commit
    assert published.recent("org/m", commit) is None
    found = published.snapshot("org/m")
    assert published.recent("org/m", commit) is found
    assert published.recent("org/m", "main") is None
    now[0] += 6
    assert published.recent("org/m", commit) is None


def test_recent_snapshots_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pmodel.service.hub.published_snapshots._KEEP_SNAPSHOTS", 3)
    published = PublishedCache(HubCache(tmp_path), clock=lambda: 0.0)
    for n in range(5):
        write_snapshot(tmp_path, f"org/m{n}", {"a": b"1"})
        published.snapshot(f"org/m{n}")
    assert len(published._snapshots) == 3
    assert set(published.snapshot("org/m0").files) == {"a"}


def test_invented_names_are_not_cached(tmp_path: Path) -> None:
    cache = HubCache(tmp_path)
    published = PublishedCache(cache)
    for n in range(3):
        with pytest.raises(RepoNotFound):
            published.snapshot(f"no/{n}")
    assert cache._repos == {}


@pytest.mark.parametrize("repo", ["", "a/b/c", "../etc", "a--b/c", "x" * 100, ".", "a/..", "a b/c"])
def test_a_malformed_id_is_a_repository_not_found(tmp_path: Path, repo: str) -> None:
    with pytest.raises(RepoNotFound):
        PublishedCache(HubCache(tmp_path)).snapshot(repo)


@pytest.mark.parametrize("revision", ["", "..", "../x", "a//b", "\0", "v9", "refs/pr/9", "abc123", "main.lock"])
def test_a_malformed_or_unknown_revision_is_not_found(tmp_path: Path, revision: str) -> None:
    write_snapshot(tmp_path, "org/m", {"a": b"1"})
    with pytest.raises(RevisionNotFound):
        PublishedCache(HubCache(tmp_path)).snapshot("org/m", revision)


def test_a_ref_without_its_snapshot_is_not_found(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "org/m", {"a": b"1"})
    (tmp_path / "models--org--m" / "refs" / "next").write_text("0" * 40)
    with pytest.raises(RevisionNotFound):
        PublishedCache(HubCache(tmp_path)).snapshot("org/m", "next")
