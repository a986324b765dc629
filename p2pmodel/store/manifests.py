"""Manifests of snapshots in a cache: recorded by p2pmodel, else by huggingface_hub, else taken from the symlinks."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from p2pmodel.core.content.manifest import Manifest, ManifestFile, lfs_pointer_oid
from p2pmodel.core.content.names import COMMIT, RepoId
from p2pmodel.errors import P2PModelError
from p2pmodel.store.files.disk import put, read_json, write_atomic
from p2pmodel.store.files.folder import Folder

TREE_FORMAT = 1
"""`format_version` of huggingface_hub's trees/<commit>.json."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(repo: RepoId, folder: Path, private: Sequence[Path], commit: str) -> Manifest | None:
    """The manifest of `commit` in the repository's cache `folder`, from the best readable source.

    The own records first, in the folders `private`: trees/ lack `private`. A damaged source counts as absent. None if
    there is no source.
    """
    sources: tuple[tuple[Callable[[RepoId, Path, str], Manifest | None], Path], ...] = (
        *((_recorded, place) for place in private),
        (_from_tree, folder),
        (_from_links, folder),
    )
    for source, place in sources:
        try:
            manifest = source(repo, place, commit)
        except P2PModelError:
            continue
        if manifest is not None:
            return manifest
    return None


def record_manifest(private: Path, manifest: Manifest) -> None:
    """Save `manifest` in the `private` folder for `read_manifest`."""
    data = json.dumps(manifest.to_dict(), indent=1).encode()
    write_atomic(_record_path(private, manifest.commit), data, via=private / "tmp")


def record_tree(trees: Folder, manifest: Manifest, *, via: Path) -> None:
    """Write trees/<commit>.json as huggingface_hub 1.33+ does; with it the hub's client detects an incomplete snapshot.

    An existing tree of the same files stays: the one of huggingface_hub also has Xet hashes.
    """
    try:
        known = _from_tree(manifest.repo, trees.path.parent, manifest.commit)
    except P2PModelError:
        known = None
    if known is None or known.files != manifest.files:
        put(trees, f"{manifest.commit}.json", tree_json(manifest), via=via)


def tree_json(manifest: Manifest) -> bytes:
    """The bytes that huggingface_hub's write_tree_cache writes for `manifest`."""
    files = {f.path: _tree_entry(f) for f in sorted(manifest.files, key=lambda f: f.path)}
    return json.dumps({"format_version": TREE_FORMAT, "files": files}, indent=1).encode()


def _tree_entry(file: ManifestFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": file.size, "blob_id": file.git_oid}
    if file.sha256 is not None:
        entry |= {"lfs_sha256": file.sha256, "lfs_size": file.size}
    return entry


def _record_path(private: Path, commit: str) -> Path:
    return private / "manifests" / f"{commit}.json"


def _tree_path(folder: Path, commit: str) -> Path:
    return folder / "trees" / f"{commit}.json"


def _recorded(repo: RepoId, private: Path, commit: str) -> Manifest | None:
    plain = read_json(_record_path(private, commit))
    if not isinstance(plain, dict):
        return None
    manifest = Manifest.from_dict(plain)
    return manifest if (manifest.repo, manifest.commit) == (repo, commit) else None


def _from_tree(repo: RepoId, folder: Path, commit: str) -> Manifest | None:
    tree = read_json(_tree_path(folder, commit))
    files = tree.get("files") if isinstance(tree, dict) and tree.get("format_version") == TREE_FORMAT else None
    if not isinstance(files, dict) or not all(isinstance(info, dict) for info in files.values()):
        return None
    entries = [
        {
            "path": path,
            "size": info.get("size"),
            "git_oid": info.get("blob_id"),
            "sha256": info.get("lfs_sha256"),
        }
        for path, info in files.items()
    ]
    return Manifest.from_dict({"repo": str(repo), "commit": commit, "files": entries})


def _from_links(repo: RepoId, folder: Path, commit: str) -> Manifest | None:
    """The links of a snapshot contain the names of its blobs, which are hashes. Only present files can be listed.

    Entries that do not link to a blob are skipped: they belong to the user, or their name cannot be served.
    A dangling link means that the snapshot is incomplete and its list unknown: None.
    """
    root = folder / "snapshots" / commit
    files: list[ManifestFile] = []
    for parent, _, names in os.walk(root):
        for name in names:
            entry = Path(parent, name)
            blob = linked_blob(entry, folder / "blobs")
            if blob is None:
                continue
            try:
                size = blob.stat().st_size
            except OSError:
                return None
            file = _file_of(entry.relative_to(root).as_posix(), size, blob.name)
            if file is not None:
                files.append(file)
    return Manifest(repo, commit, tuple(files)) if files else None


def linked_blob(entry: Path, blobs: Path) -> Path | None:
    """The blob in `blobs` that the symlink `entry` points at, existing or not; None for any other entry."""
    try:
        return blob_behind(entry, str(entry.readlink()), blobs)
    except OSError:
        return None


def blob_behind(entry: Path, link: str, blobs: Path) -> Path | None:
    """As `linked_blob`, of an entry with the text `link`."""
    target = Path(os.path.normpath(entry.parent / link))
    named = _SHA256.fullmatch(target.name) or COMMIT.fullmatch(target.name)
    return target if named and target.parent == blobs else None


def _file_of(path: str, size: int, etag: str) -> ManifestFile | None:
    try:
        if len(etag) == 64:
            return ManifestFile(path, size, lfs_pointer_oid(etag, size), etag)
        return ManifestFile(path, size, etag)
    except P2PModelError:
        return None
