"""JSON bodies about a snapshot (Hugging Face hub API: model info, tree, paths-info, refs)."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from p2pmodel.core.content.manifest import Manifest, ManifestFile, lfs_pointer
from p2pmodel.core.content.names import MODELS

Entry = dict[str, Any]

_GIT_FILE = b"100644"
_GIT_DIRECTORY = b"40000"


def model_info(manifest: Manifest, *, blobs: bool) -> Entry:
    """Body of `GET /api/{kind}/{id}[/revision/{rev}]`; `blobs` adds size and hashes to each file."""
    name = manifest.repo.name
    organisation, slash, _ = name.partition("/")
    return {
        "id": name,
        **({"modelId": name} if manifest.repo.kind == MODELS else {}),
        **({"author": organisation} if slash else {}),
        "sha": manifest.commit,
        "private": manifest.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "usedStorage": manifest.total_size,
        "siblings": [_sibling(file, blobs=blobs) for file in manifest.files],
    }


def _sibling(file: ManifestFile, *, blobs: bool) -> Entry:
    if not blobs:
        return {"rfilename": file.path}
    entry: Entry = {"rfilename": file.path, "size": file.size, "blobId": file.git_oid}
    if file.sha256 is not None:
        entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    return entry


def tree(manifest: Manifest, directory: str, *, recursive: bool) -> list[Entry] | None:
    """Entries of `GET .../tree/{rev}[/{directory}]` in path order; None if there is no such directory.

    `directory` has no slash at its end and is empty for the root; `recursive` lists everything below it.
    """
    oids = tree_oids(manifest.files)
    if directory not in oids:
        return None
    below = directory + "/" if directory else ""
    entries = [_directory(path, oid) for path, oid in oids.items() if path and path.startswith(below)]
    entries += [_file(file) for file in manifest.files if file.path.startswith(below)]
    if not recursive:
        entries = [entry for entry in entries if "/" not in entry["path"][len(below) :]]
    return sorted(entries, key=lambda entry: entry["path"].encode())


def paths_info(manifest: Manifest, paths: Iterable[str]) -> list[Entry]:
    """Body of `POST .../paths-info/{rev}`: the entries of existing `paths`, each once."""
    wanted = dict.fromkeys(path.strip("/") for path in paths)
    files = {file.path: file for file in manifest.files}
    oids = tree_oids(manifest.files)
    found = []
    for path in wanted:
        if path in files:
            found.append(_file(files[path]))
        elif path and path in oids:
            found.append(_directory(path, oids[path]))
    return found


def refs(commits: Mapping[str, str]) -> Entry:
    """Body of `GET .../refs` from ref names and commits. The cache does not distinguish tags from branches: all refs
    except pull requests and conversions are listed as branches."""
    body: Entry = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for name, commit in sorted(commits.items()):
        kind, ref = "branches", f"refs/heads/{name}"
        if name.startswith("refs/"):
            kind, ref = ("pullRequests" if name.startswith("refs/pr/") else "converts"), name
        short = name.removeprefix("refs/pr/").removeprefix("refs/convert/")
        body[kind].append({"name": short, "ref": ref, "targetCommit": commit})
    return body


def tree_oids(files: Sequence[ManifestFile]) -> dict[str, str]:
    """The git tree id of every directory ('' is the root), as git computes it for files that are not executable."""
    children: dict[str, list[tuple[bytes, bytes, str]]] = {"": []}
    for file in files:
        parent, _, name = file.path.rpartition("/")
        _ensure(children, parent)
        children[parent].append((name.encode(), _GIT_FILE, file.git_oid))
    oids: dict[str, str] = {}
    for path in sorted(children, key=_depth, reverse=True):
        oids[path] = _tree_oid(children[path])
        if path:
            parent, _, name = path.rpartition("/")
            children[parent].append((name.encode(), _GIT_DIRECTORY, oids[path]))
    return oids


def _ensure(children: dict[str, list[tuple[bytes, bytes, str]]], directory: str) -> None:
    while directory not in children:
        children[directory] = []
        directory = directory.rpartition("/")[0]


def _depth(path: str) -> int:
    return path.count("/") + 1 if path else 0


def _tree_oid(entries: list[tuple[bytes, bytes, str]]) -> str:
    # git sorts a directory as if its name ended in a slash.
    ordered = sorted(entries, key=lambda e: e[0] + b"/" if e[1] == _GIT_DIRECTORY else e[0])
    body = b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid) for name, mode, oid in ordered)
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def _file(file: ManifestFile) -> Entry:
    entry: Entry = {"type": "file", "oid": file.git_oid, "size": file.size, "path": file.path}
    if file.sha256 is not None:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    return entry


def _directory(path: str, oid: str) -> Entry:
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def _pointer_size(file: ManifestFile) -> int:
    return len(lfs_pointer(file.etag, file.size))
