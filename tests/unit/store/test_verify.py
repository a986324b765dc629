"""Verification finds every kind of damage, and records its results."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import LocalResource
from p2pmodel.store import verify as module
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.verify import digest_of, rehash, sealed_digest, verify
from tests.support.hub_layout import write_snapshot
from tests.support.stored import CONTENTS, publish

WEIGHTS = "model-00001.safetensors"


@pytest.fixture
def repo(tmp_path: Path) -> RepoCache:
    return HubCache(tmp_path / "hub").repo(RepoId("org/model"))


def paths(files: object) -> list[str]:
    return [f.path for f in files]  # type: ignore[attr-defined]


def test_a_sound_snapshot_is_whole_and_recorded_as_verified(repo: RepoCache) -> None:
    manifest = write_snapshot(repo.cache.root, "org/model", CONTENTS)
    seen: list[int] = []
    report = verify(repo, manifest, progress=seen.append)
    assert report.whole
    assert report.ok == manifest.files
    assert sum(seen) == manifest.total_size
    assert all(repo.is_verified(f) for f in manifest.files)


def flip(blob: Path) -> None:
    """One bit, the size and mtime as before: what a failing disk does."""
    status = blob.stat()
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_each_kind_of_damage_is_named_and_ends_the_trust(repo: RepoCache) -> None:
    manifest = publish(repo.cache)
    config, empty, weights, nested = manifest.files
    flip(repo.blob_path(weights))
    os.truncate(repo.blob_path(config), 3)
    repo.blob_path(nested).unlink()
    repo.mark_verified([weights])  # as if a disk had damaged it: that changes no time
    report = verify(repo, manifest, jobs=1)
    assert not report.whole
    assert report.ok == (empty,)
    assert report.corrupt == (config, weights)
    assert report.missing == (nested,)
    assert not repo.is_verified(weights)


def test_a_file_that_the_snapshot_does_not_show_is_missing(repo: RepoCache) -> None:
    manifest = publish(repo.cache)
    snapshot = repo.snapshot(manifest.commit)
    (snapshot / "config.json").unlink()
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(f"../../blobs/{manifest.files[0].etag}")
    assert paths(verify(repo, manifest).missing) == ["config.json", WEIGHTS]


def test_a_part_of_a_snapshot_lacks_the_rest(repo: RepoCache) -> None:
    manifest = publish(repo.cache, paths=["config.json"])
    report = verify(repo, manifest)
    assert paths(report.ok) == ["config.json"]
    assert len(report.missing) == len(CONTENTS) - 1


def test_the_caller_can_stop_it(repo: RepoCache) -> None:
    manifest = publish(repo.cache)

    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(repo, manifest, progress=stop)


def test_an_empty_snapshot_is_whole(repo: RepoCache) -> None:
    assert verify(repo, Manifest(repo.repo, "1" * 40, ())).whole


def test_digests_are_the_hubs(repo: RepoCache, tmp_path: Path) -> None:
    manifest = publish(repo.cache)
    for file in manifest.files:
        path = tmp_path / "copy"
        path.write_bytes(CONTENTS[file.path])
        counted: list[int] = []
        assert digest_of(path, file, counted.append) == sealed_digest(path, file) == file.etag
        assert sum(counted) == file.size
    weights = manifest.file(WEIGHTS)
    assert weights
    path.write_bytes(b"other")
    assert digest_of(path, weights) == hashlib.sha256(b"other").hexdigest()
    with pytest.raises(LocalResource, match="no such file"):
        digest_of(tmp_path / "absent", weights)
    with pytest.raises(LocalResource, match="no such file"):
        sealed_digest(tmp_path / "absent", weights)


def test_what_is_recorded_is_the_file_that_was_read(repo: RepoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user may swap whole folders while a blob is hashed: that changes no time of the wrong blob."""
    manifest = publish(repo.cache)
    weights = next(file for file in manifest.files if file.path == WEIGHTS)
    blobs, right = repo.blob_path(weights).parent, repo.folder / "right"
    shutil.copytree(blobs, right)
    (blobs / weights.etag).write_bytes(bytes(weights.size))
    repo.forget_verified(weights)
    real = module.digest_of

    def swapping(*given: Any) -> str:
        blobs.rename(repo.folder / "wrong")
        right.rename(blobs)
        try:
            return real(*given)
        finally:
            blobs.rename(right)
            (repo.folder / "wrong").rename(blobs)

    monkeypatch.setattr(module, "digest_of", swapping)
    assert not rehash(repo, weights)
    assert not repo.is_verified(weights)
