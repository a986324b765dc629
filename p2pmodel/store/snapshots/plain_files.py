"""Files in the place of links in the snapshots of a repository.

On a file system without symlinks huggingface_hub moves a blob to its path in the snapshot, and copies it to a second
one. Then no name tells the hash: the list of the snapshot does. So a plain file counts only if the list of its commit
is known, its size is right, and no blob has its etag.
"""

import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.store.files.folder import Folder

KEPT = 2.0
"""Seconds for which the list of plain files is kept, and at least 20 times as long as it took to make."""
_KNOWN = 64
"""Lists of files that are remembered beside those on record."""


class SnapshotSource(Protocol):
    """What plain files are looked for in: the part of a cache for one repository."""

    def commits(self) -> list[str]:
        """Commits with a snapshot folder."""

    def manifest(self, commit: str) -> Manifest | None:
        """The list of files on record."""

    def snapshot_entries(self, commit: str) -> Iterator[tuple[Folder, tuple[str, ...], str]]:
        """Every entry of a snapshot, as `Folder.walk`."""


@dataclass(frozen=True, slots=True)
class PlainFile:
    """The file `path` of the snapshot `commit`."""

    commit: str
    path: str

    @property
    def way(self) -> tuple[str, ...]:
        """The folders that lead to it in the repository's part of the cache."""
        return ("snapshots", self.commit, *self.path.split("/")[:-1])

    @property
    def name(self) -> str:
        """Its name in the last of them."""
        return self.path.rpartition("/")[2]

    @property
    def key(self) -> str:
        """Its name in the journal of verified blobs, beside the blob's own."""
        return f"{self.commit}/{self.path}"


class PlainFiles:
    """The plain files of one repository, by etag."""

    def __init__(self, source: SnapshotSource, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Manifest] = OrderedDict()
        self._found: dict[str, list[tuple[PlainFile, int]]] = {}
        self._fresh_until = float("-inf")

    def know(self, manifest: Manifest) -> None:
        """Use `manifest` for a snapshot without a list on record."""
        with self._lock:
            self._known[manifest.commit] = manifest
            self._known.move_to_end(manifest.commit)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
            self._fresh_until = float("-inf")

    def forget(self) -> None:
        """Look again: this process has just changed a snapshot."""
        with self._lock:
            self._fresh_until = float("-inf")

    def of(self, file: ManifestFile) -> list[PlainFile]:
        """Where plain files with the content of `file` are, as far as their sizes tell."""
        return [place for place, size in self._all().get(file.etag, ()) if size == file.size]

    def sizes(self, etag: str) -> list[tuple[PlainFile, int]]:
        """The plain files with this etag, and their sizes."""
        return self._all().get(etag, [])

    def etags(self) -> frozenset[str]:
        """The etags of all plain files."""
        return frozenset(self._all())

    def _all(self) -> dict[str, list[tuple[PlainFile, int]]]:
        with self._lock:
            began = self._clock()
            if began >= self._fresh_until:
                self._found = self._look()
                ended = self._clock()
                self._fresh_until = ended + max(KEPT, 20 * (ended - began))
            return self._found

    def _look(self) -> dict[str, list[tuple[PlainFile, int]]]:
        found: dict[str, list[tuple[PlainFile, int]]] = {}
        for commit in self._source.commits():
            sizes = self._plain_sizes(commit)
            manifest = (self._source.manifest(commit) or self._known.get(commit)) if sizes else None
            for file in manifest.files if manifest else ():
                if sizes.get(file.path) == file.size:
                    found.setdefault(file.etag, []).append((PlainFile(commit, file.path), file.size))
        return found

    def _plain_sizes(self, commit: str) -> dict[str, int]:
        sizes = {}
        for folder, way, name in self._source.snapshot_entries(commit):
            status = folder.status(name)
            if status is not None and stat.S_ISREG(status.st_mode):
                sizes["/".join((*way, name))] = status.st_size
        return sizes
