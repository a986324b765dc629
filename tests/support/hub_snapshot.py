"""An in-memory snapshot as a hub would describe it."""

import fnmatch
import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.core.content.manifest import Manifest, ManifestFile, git_blob_hasher, lfs_pointer_oid
from p2pmodel.core.content.names import RepoId

LFS_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.gguf", "*.h5", "*.onnx")
LFS_FROM = 10 << 20
"""Larger files are in LFS whatever their name."""

Content = bytes | mmap.mmap


@dataclass(frozen=True)
class HubSnapshot:
    """`repo` at `commit`: contents by path."""

    repo: str
    commit: str
    contents: Mapping[str, Content]
    files: Mapping[str, ManifestFile]

    @property
    def manifest(self) -> Manifest:
        return Manifest(RepoId(self.repo), self.commit, tuple(self.files.values()))

    def file(self, path: str) -> ManifestFile:
        return self.files[path]

    def siblings(self) -> list[dict[str, Any]]:
        """As GET /api/models/{id}?blobs=true lists them."""
        listed = []
        for f in self.files.values():
            entry: dict[str, Any] = {"rfilename": f.path, "size": f.size, "blobId": f.git_oid}
            if f.sha256:
                entry["lfs"] = {"sha256": f.sha256, "size": f.size, "pointerSize": 134}
            listed.append(entry)
        return listed

    def tree(self) -> list[dict[str, Any]]:
        """As GET /api/models/{id}/tree/{rev}?recursive=true lists it, directories included."""
        listed: list[dict[str, Any]] = []
        for f in self.files.values():
            entry: dict[str, Any] = {"type": "file", "path": f.path, "size": f.size, "oid": f.git_oid}
            if f.sha256:
                entry["lfs"] = {"oid": f.sha256, "size": f.size, "pointerSize": 134}
            listed.append(entry)
        folders = {str(parent) for path in self.files for parent in Path(path).parents} - {"."}
        listed += [{"type": "directory", "path": d, "size": 0, "oid": "0" * 40} for d in folders]
        return sorted(listed, key=lambda entry: str(entry["path"]))


def snapshot_of(contents: Mapping[str, Content], repo: str = "org/model", commit: str = "") -> HubSnapshot:
    """A snapshot of `contents`; the commit follows from them unless given."""
    files = {path: _describe(path, data) for path, data in sorted(contents.items())}
    if not commit:
        listing = "\n".join(f"{f.path} {f.etag}" for f in files.values())
        commit = hashlib.sha1(f"{repo}\n{listing}".encode()).hexdigest()
    return HubSnapshot(repo, commit, dict(contents), files)


def snapshot_from(folder: Path, repo: str, commit: str = "") -> HubSnapshot:
    """A snapshot of the files below `folder`, mapped rather than read."""
    contents = {str(p.relative_to(folder)): _map(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    return snapshot_of(contents, repo, commit)


def _map(path: Path) -> Content:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def _describe(path: str, data: Content) -> ManifestFile:
    size = len(data)
    if size > LFS_FROM or any(fnmatch.fnmatchcase(path, pattern) for pattern in LFS_PATTERNS):
        digest = hashlib.sha256(data).hexdigest()
        return ManifestFile(path, size, lfs_pointer_oid(digest, size), digest)
    hasher = git_blob_hasher(size)
    hasher.update(data)
    return ManifestFile(path, size, hasher.hexdigest())
