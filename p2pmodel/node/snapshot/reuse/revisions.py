"""The other revisions of a repository in the cache, whole and unfinished ones, as sources of bytes."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.shard_header import LENGTH, StoredTensor, header_length, tensor_places
from p2pmodel.errors import IntegrityError, P2PModelError
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.staging import unfinished_commits

MOST_REVISIONS = 8
"""Revisions that are looked at: those with a name first, then the youngest."""
MAX_HEADER = 32 << 20
"""Bytes; a file with a longer header is not matched by tensors."""
SHARD = ".safetensors"


class OldRevision:
    """One revision; `file` finds the older file with the path of a new one."""

    def __init__(self, repo: RepoCache, manifest: Manifest) -> None:
        self._repo = repo
        self._files = {file.path: file for file in manifest.files}

    def file(self, path: str) -> ManifestFile | None:
        """The file at `path`."""
        return self._files.get(path)

    def open(self, etag: str) -> int:
        """A descriptor of the content, whole or unfinished. Raises OSError."""
        return _open(self._repo, self._by_etag[etag])

    def tensors(self, path: str) -> dict[str, tuple[str, StoredTensor]]:
        """The tensors of all weight files by name, with the etag of their file. Of equal names, the one in `path`."""
        found = dict(self._tensors)
        if (file := self._files.get(path)) is not None and file.etag in self._headers:
            found |= {tensor.name: (file.etag, tensor) for tensor in self._headers[file.etag]}
        return found

    def own_tensors(self, path: str) -> list[StoredTensor]:
        """The tensors of the file at `path`, by their place."""
        file = self._files.get(path)
        return self._headers.get(file.etag, []) if file else []

    def header_bytes(self, path: str) -> int | None:
        """Bytes before the tensors of the file at `path`, else of the largest header of the revision; None without
        readable tensors."""
        file = self._files.get(path)
        own = self._headers.get(file.etag) if file else None
        starts = [tensors[0].start for tensors in ([own] if own else self._headers.values()) if tensors]
        return max(starts, default=None)

    @cached_property
    def _by_etag(self) -> dict[str, ManifestFile]:
        return {file.etag: file for file in self._files.values()}

    @cached_property
    def _headers(self) -> dict[str, list[StoredTensor]]:
        found = {}
        for etag, file in self._by_etag.items():
            if file.path.endswith(SHARD):
                with suppress(OSError, P2PModelError):
                    descriptor = _open(self._repo, file)
                    try:
                        found[etag] = read_tensors(descriptor, file)
                    finally:
                        os.close(descriptor)
        return found

    @cached_property
    def _tensors(self) -> dict[str, tuple[str, StoredTensor]]:
        return {tensor.name: (etag, tensor) for etag, tensors in self._headers.items() for tensor in tensors}


@translated()
def other_revisions(repo: RepoCache, manifest: Manifest) -> list[OldRevision]:
    """The revisions of `repo` other than `manifest`, the most promising first. Blocks."""
    found = []
    for commit in _commits(repo):
        if commit != manifest.commit and (old := repo.manifest(commit)) is not None:
            found.append(OldRevision(repo, old))
            if len(found) == MOST_REVISIONS:
                break
    return found


def read_tensors(descriptor: int, file: ManifestFile) -> list[StoredTensor]:
    """The tensors of an open safetensors file. Raises IntegrityError, also for a header that is not there yet."""
    length = header_length(os.pread(descriptor, LENGTH, 0), file.path, file.size)
    if length > MAX_HEADER:
        raise IntegrityError(f"{file.path} has a header of {length} bytes")
    return tensor_places(os.pread(descriptor, length, LENGTH), file.path, file.size)


def header_end(path: Path, file: ManifestFile) -> int:
    """Where the header of a safetensors file ends, of which the beginning is there. Raises IntegrityError."""
    descriptor = open_regular(path)
    try:
        return LENGTH + header_length(os.pread(descriptor, LENGTH, 0), file.path, file.size)
    finally:
        os.close(descriptor)


def _commits(repo: RepoCache) -> Iterator[str]:
    named, held = dict.fromkeys(repo.refs().values()), repo.commits()
    yield from (commit for commit in named if commit in held)
    yield from sorted((commit for commit in held if commit not in named), key=lambda commit: -_age(repo, commit))
    yield from (commit for commit in unfinished_commits(repo.private) if commit not in held)


def _age(repo: RepoCache, commit: str) -> float:
    with suppress(OSError):
        return repo.snapshot(commit).lstat().st_mtime
    return 0.0


def _open(repo: RepoCache, file: ManifestFile) -> int:
    try:
        with repo.open_blob(file) as blob:
            return os.dup(blob.fileno())
    except OSError:
        return open_regular(repo.staged.readable_path(file))
