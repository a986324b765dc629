"""Filling a hub cache through the store, as the node does."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.publish import publish_blob, publish_snapshot
from tests.support.hub_snapshot import HubSnapshot, snapshot_of

CONTENTS = {
    "config.json": b'{"model_type": "tiny"}',
    "empty.txt": b"",
    "model-00001.safetensors": bytes(range(256)) * 700,
    "nested/deep er/größe.bin": b"w" * 40_000,
}


def stage(repo: RepoCache, manifest: Manifest, file: ManifestFile, data: bytes) -> Path:
    """Write `data` where the node assembles `file`."""
    repo.staged.list(manifest)
    path = repo.staged.path_of(file)
    path.write_bytes(data)
    return path


def publish(
    cache: HubCache,
    snapshot: HubSnapshot | None = None,
    *,
    paths: Iterable[str] | None = None,
    refs: Sequence[str] = ("main",),
) -> Manifest:
    """Publish `snapshot` (default: CONTENTS as org/model), or only the files at `paths`."""
    given = snapshot or snapshot_of(CONTENTS)
    manifest = given.manifest
    repo = cache.repo(manifest.repo)
    wanted = [f for f in manifest.files if paths is None or f.path in set(paths)]
    for file in wanted:
        if repo.blob(file) is None:
            publish_blob(repo, file, stage(repo, manifest, file, bytes(given.contents[file.path])))
    publish_snapshot(repo, manifest, wanted, refs)
    return manifest


def move_to_shared_store(repo: RepoCache, file: ManifestFile) -> Path:
    """Turn a blob into a link into `hub/blobs`, as huggingface_hub 2 keeps Xet files; returns the payload."""
    xet_hash = "ab" * 32
    payload = repo.cache.root / "blobs" / xet_hash[:2] / xet_hash
    payload.parent.mkdir(parents=True)
    (repo.cache.root / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    blob = repo.blob_path(file)
    shutil.move(blob, payload)
    blob.symlink_to(f"../../blobs/{xet_hash[:2]}/{xet_hash}")
    return payload
