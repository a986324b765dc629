"""Hub caches written by hand, as huggingface_hub lays them out."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile, git_blob_hasher, lfs_pointer_oid
from p2pmodel.core.content.names import RepoId

LFS_SUFFIXES = (".safetensors", ".bin")


def manifest_file(path: str, content: bytes) -> ManifestFile:
    """The manifest entry of `content`; weights are LFS files."""
    if path.endswith(LFS_SUFFIXES):
        sha256 = hashlib.sha256(content).hexdigest()
        return ManifestFile(path, len(content), lfs_pointer_oid(sha256, len(content)), sha256)
    digest = git_blob_hasher(len(content))
    digest.update(content)
    return ManifestFile(path, len(content), digest.hexdigest())


def write_snapshot(
    hub: Path,
    repo: str,
    files: Mapping[str, bytes],
    *,
    refs: tuple[str, ...] = ("main",),
    commit: str | None = None,
    tree: bool = True,
) -> Manifest:
    """Add a complete snapshot to the cache at `hub`; `tree`: also write the hub's list of its files."""
    entries = tuple(manifest_file(path, content) for path, content in files.items())
    names = json.dumps([[repo], *[[f.path, f.etag] for f in entries]]).encode()
    manifest = Manifest(RepoId(repo), commit or hashlib.sha1(names).hexdigest(), entries)
    folder = hub / manifest.repo.cache_folder
    for entry in entries:
        _write(folder / "blobs" / entry.etag, files[entry.path])
        link = folder / "snapshots" / manifest.commit / entry.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(folder / "blobs" / entry.etag, link.parent))
    if tree:
        _write(folder / "trees" / f"{manifest.commit}.json", _tree(entries))
    for ref in refs:
        _write(folder / "refs" / ref, manifest.commit.encode())
    return manifest


def _tree(entries: tuple[ManifestFile, ...]) -> bytes:
    files = {}
    for f in entries:
        lfs = {"lfs_sha256": f.sha256, "lfs_size": f.size} if f.sha256 else {}
        files[f.path] = {"size": f.size, "blob_id": f.git_oid, **lfs}
    return json.dumps({"format_version": 1, "files": files}).encode()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
