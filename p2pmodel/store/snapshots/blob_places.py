"""Where the content of a file lies in a repository's part of the cache, and what is on record about it.

It is a blob, a link from there into the hub's shared store, or a plain file of a snapshot. The first two have the etag
as their key in the journal, a plain file has its own.

On a file system without symlinks huggingface_hub moves a blob to its path in the snapshot, and copies it to a second
one. Then no name tells the hash: the list of the snapshot does. So a plain file counts only if the list of its commit
is known, its size is right, and no blob has its etag.
"""

import errno
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.store.files.folder import Folder
from p2pmodel.store.state.verified_blobs import BlobState, Fingerprint, VerifiedBlobs, fingerprint

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


SHARED_STORE = "blobs"
"""The hub's folder in the cache with contents that several repositories share; their blobs are links into it."""


class RepoFolder(SnapshotSource, Protocol):
    """A repository's part of a cache."""

    folder: Path

    def opened(self, *names: str) -> AbstractContextManager[Folder]:
        """A folder of it, open."""


@dataclass(frozen=True, slots=True)
class BlobPlace:
    """One place of content: the folders below the cache's root, the name in the last of them, the key in the journal,
    and the path. `plain` is set for a file of a snapshot."""

    way: tuple[str, ...]
    name: str
    key: str
    path: Path
    plain: PlainFile | None = None


class BlobPlaces:
    """The places of all contents of `repo`, in the cache `root`."""

    def __init__(self, root: Path, repo: RepoFolder, verified: VerifiedBlobs) -> None:
        self._root = root
        self._repo = repo
        self._verified = verified
        self.plain = PlainFiles(repo)

    def find(self, file: ManifestFile) -> BlobPlace | None:
        """The place of the content of `file`, if there is one with the right size. Contents are not read.

        A plain file counts where there is no blob; of several the first that is not in doubt.
        """
        path = self._repo.folder / "blobs" / file.etag
        try:
            status = path.lstat()
            way: tuple[str, ...] = (self._repo.folder.name, "blobs", file.etag)
            if stat.S_ISLNK(status.st_mode):
                way = self._shared(str(path.readlink()))
                status = self._root.joinpath(*way).lstat()
        except FileNotFoundError:
            return self._find_plain(file)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
            return None
        return BlobPlace(way[:-1], way[-1], file.etag, self._root.joinpath(*way))

    def open(self, file: ManifestFile) -> BinaryIO:
        """Open the content of `file`. No other file can be opened in its place. Raises OSError."""
        try:
            with self._repo.opened("blobs") as blobs:
                target = blobs.target(file.etag)
                if target is None:
                    return os.fdopen(blobs.open_file(file.etag), "rb", buffering=0)
        except FileNotFoundError:
            place = self._find_plain(file)
            if place is None:
                raise
            return self.open_place(place)
        *way, name = self._shared(target)
        return self._open(tuple(way), name)

    def open_place(self, place: BlobPlace) -> BinaryIO:
        """Open the file at `place`. Raises OSError."""
        return self._open(place.way, place.name)

    def states(self, found: dict[str, tuple[BlobPlace | None, Fingerprint | None]]) -> dict[str, BlobState]:
        """The states of contents by etag; `found` has their places and fingerprints."""
        keyed = {(place.key if place else etag): now for etag, (place, now) in found.items()}
        states = self._verified.states(keyed)
        return {etag: states[place.key if place else etag] for etag, (place, _) in found.items()}

    def entry(self, commit: str, file: ManifestFile) -> BlobPlace:
        """The plain file at the path of `file` in a snapshot, which need not exist."""
        return self._place(PlainFile(commit, file.path))

    def entry_state(self, commit: str, file: ManifestFile) -> BlobState:
        """The state of the plain file at the path of `file` in a snapshot."""
        place = self.entry(commit, file)
        now = fingerprint(place.path)
        return self._verified.states({place.key: now if now and now[0] == file.size else None})[place.key]

    def _find_plain(self, file: ManifestFile) -> BlobPlace | None:
        places = [self._place(each) for each in self.plain.of(file)]
        found = [(place, now) for place in places if (now := _regular(place.path, file.size)) is not None]
        if len(found) > 1:
            states = self._verified.states({place.key: now for place, now in found})
            found.sort(key=lambda each: not states[each[0].key].usable)
        return found[0][0] if found else None

    def _place(self, plain: PlainFile) -> BlobPlace:
        way = (self._repo.folder.name, *plain.way)
        return BlobPlace(way, plain.name, plain.key, self._root.joinpath(*way, plain.name), plain)

    def _open(self, way: Iterable[str], name: str) -> BinaryIO:
        with Folder.open(self._root) as root, root.enter(*way) as folder:
            return os.fdopen(folder.open_file(name), "rb", buffering=0)

    def _shared(self, target: str) -> tuple[str, ...]:
        """The names below the cache's root to which the link `target` of a blob leads. OSError if it leads elsewhere
        than into the shared store."""
        path = Path(os.path.normpath(self._repo.folder / "blobs" / target))
        for root in (self._root, Path(os.path.realpath(self._root))):
            if path.is_relative_to(root / SHARED_STORE):
                return path.relative_to(root).parts
        raise OSError(errno.ELOOP, "a link that leaves the cache", str(self._repo.folder / "blobs"))


def _regular(path: Path, size: int) -> Fingerprint | None:
    """The fingerprint of the regular file `path`, if it has `size` bytes."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return fingerprint(path) if stat.S_ISREG(status.st_mode) and status.st_size == size else None
