"""Verification of the cache's files against the hub's hashes: of blobs, and of files that are still being written.

A quick look reads no content.
"""

import errno
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import sync
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.hashing import chunks
from p2pmodel.store.files.parallel import Count, default_jobs, ignore, in_parallel
from p2pmodel.store.snapshots.blob_places import BlobPlace
from p2pmodel.store.snapshots.snapshot_list import SnapshotCheck, check_snapshot
from p2pmodel.store.state.verified_blobs import BlobState, fingerprint_of


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The files of a snapshot by the result of their verification, in canonical order."""

    ok: tuple[ManifestFile, ...]
    missing: tuple[ManifestFile, ...]
    """No blob, or no link to it at the file's path in the snapshot."""
    corrupt: tuple[ManifestFile, ...]
    """The blob's size or hash is wrong."""
    unreadable: tuple[ManifestFile, ...] = ()
    """This user may not read the blob."""

    @property
    def whole(self) -> bool:
        """Whether every file is present and right."""
        return not (self.missing or self.corrupt or self.unreadable)


def verify(repo: RepoCache, manifest: Manifest, *, progress: Count = ignore, jobs: int | None = None) -> VerifyReport:
    """Hash every blob of a snapshot again, on `jobs` threads, also those verified before.

    The results are recorded, as by `rehash`. `progress` gets the bytes hashed since its last call, from the
    threads; an exception it raises stops the pass.
    """
    state: dict[str, str] = {}

    def work(file: ManifestFile, count: Count) -> None:
        state[file.path] = _judge(repo, manifest.commit, file, count)

    largest_first = sorted(manifest.files, key=lambda f: -f.size)
    in_parallel(largest_first, work, jobs or default_jobs(), progress)

    def files_in(result: str) -> tuple[ManifestFile, ...]:
        return tuple(f for f in manifest.files if state[f.path] == result)

    return VerifyReport(*map(files_in, ("ok", "missing", "corrupt", "unreadable")))


def _judge(repo: RepoCache, commit: str, file: ManifestFile, count: Count) -> str:
    place = repo.places.find(file)
    if place is None and repo.blob_path(file).exists():
        return "corrupt"
    if place is None:
        repo.forget_verified(file)
        return "missing"
    try:
        if place.plain is not None:
            return _judge_entry(repo, commit, file, count)
        if not _rehash_place(repo, file, place, count):
            return "corrupt"
        entry = repo.snapshot(commit) / file.path
        # Where there are no links, the snapshot may have a file of its own beside the blob.
        linked = entry.exists() and (entry.samefile(place.path) or rehash_entry(repo, commit, file))
    except LocalResource as error:
        if isinstance(error.__cause__, PermissionError):
            return "unreadable"
        raise
    return "ok" if linked else "missing"


def _judge_entry(repo: RepoCache, commit: str, file: ManifestFile, count: Count) -> str:
    if rehash_entry(repo, commit, file, count):
        return "ok"
    return "corrupt" if repo.places.entry(commit, file).path.exists() else "missing"


def rehash(repo: RepoCache, file: ManifestFile, on_bytes: Count = ignore) -> bool:
    """Whether the blob of `file` has the right hash, by reading it. The result is recorded: no server of this machine
    sends a blob that is recorded as damaged."""
    place = repo.places.find(file)
    return place is not None and _rehash_place(repo, file, place, on_bytes)


def rehash_entry(repo: RepoCache, commit: str, file: ManifestFile, on_bytes: Count = ignore) -> bool:
    """As `rehash`, of the file that is at the path of `file` in a snapshot, in the place of a link."""
    return _rehash_place(repo, file, repo.places.entry(commit, file), on_bytes)


@translated()
def _rehash_place(repo: RepoCache, file: ManifestFile, place: BlobPlace, on_bytes: Count) -> bool:
    try:
        content = repo.places.open_place(place)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return False
    with content:
        status = os.fstat(content.fileno())
        if status.st_size != file.size:
            return False
        right = digest_of(content.fileno(), file, on_bytes) == file.etag
    repo.record_place(place.key, fingerprint_of(status), right=right)
    return right


def adoptable(repo: RepoCache, file: ManifestFile, on_bytes: Count = ignore) -> Path | None:
    """The blob of `file` if the cache has it and its content is right. It is hashed, and the result recorded, unless it
    is unchanged since an earlier check."""
    state = repo.state_of(file, repo.fingerprint(file))
    if state is BlobState.VERIFIED:
        return repo.blob(file)
    if state in (BlobState.MISSING, BlobState.DAMAGED) or not rehash(repo, file, on_bytes):
        return None
    return repo.blob(file)


@translated()
def digest_of(path: Path | int, file: ManifestFile, on_bytes: Callable[[int], None] = ignore) -> str:
    """The hub's hash, in hex, of `path`, or of an open file, as the content of `file`; another size gives another."""
    hasher = file.hasher()
    for data in chunks(path, 0, os.stat(path).st_size):  # noqa: PTH116 - of a descriptor, too
        hasher.update(data)
        on_bytes(len(data))
    return hasher.hexdigest()


@translated()
def sealed_digest(path: Path, file: ManifestFile) -> str:
    """As `digest_of`, of the content that would survive a power cut: the file is synced first."""
    sync(path)
    return digest_of(path, file)


_LACKING = (BlobState.MISSING, BlobState.DAMAGED)


@dataclass(frozen=True, slots=True)
class QuickCheck:
    """The result of a quick check. `lacking`: bytes of the files that are missing or damaged, each content once;
    `staged`: how many of them an earlier download has left; `unverified`: files that are there, and that this machine
    has never hashed; `listed`: the files are those of a hub's list. Without a list only the files that are there are
    known."""

    found: SnapshotCheck
    lacking: int
    staged: int
    unverified: int
    listed: bool


@translated()
def quick_check(repo: RepoCache, manifest: Manifest) -> QuickCheck:
    """Look at a snapshot: folder, links, sizes, and the records of earlier checks. Changes nothing. Blocks.

    Unfinished files matter where a file is missing; what they have of other snapshots is no fault of this one.
    """
    found = check_snapshot(repo, manifest.commit, manifest.files)
    states = repo.states(manifest.files)
    lacking = list({file.etag: file for file in manifest.files if states[file.etag] in _LACKING}.values())
    return QuickCheck(
        found,
        sum(file.size for file in lacking),
        repo.staged.size_of(lacking) if lacking else 0,
        _unverified(manifest.files, states),
        repo.listed_by_a_hub(manifest.commit),
    )


def _unverified(files: Collection[ManifestFile], states: dict[str, BlobState]) -> int:
    return sum(states[file.etag] is BlobState.UNKNOWN for file in files)


QUANTUM = 128 * MIB
"""Bytes hashed in one call, about 0.1 s: a thread cannot be cancelled, and the command's end would wait for it."""

SYNC_EVERY = 256 * MIB
"""Bytes between two syncs of the file. Without them the whole sync would wait until the file is complete."""


class GrowingDigest:
    """Hashes the beginning of `path`, the content of `file`, as far as it is final; `sealed` ends it.

    It is hashed while it is in the page cache, during the download. Blocks: call in threads; calls take turns.
    """

    def __init__(self, path: Path, file: ManifestFile) -> None:
        self._path = path
        self._file = file
        self._hasher = file.hasher()
        self._hashed = 0
        self._synced = 0
        self._turn = threading.Lock()

    @property
    def hashed(self) -> int:
        """Bytes hashed so far."""
        return self._hashed

    @translated()
    def advance(self, final: int) -> bool:
        """Hash some more of the first `final` bytes, which do not change any more, as far as they are written:
        unwritten bytes are a hole. Returns whether there are more bytes to hash."""
        with self._turn:
            written = min(final, _first_hole(self._path, self._hashed))
            if written <= self._hashed:
                return False
            end = min(written, self._hashed + QUANTUM)
            for data in chunks(self._path, self._hashed, end - self._hashed):
                self._hasher.update(data)
                self._hashed += len(data)
            if self._hashed - self._synced >= SYNC_EVERY:
                sync(self._path)
                self._synced = self._hashed
            return self._hashed < written

    @translated()
    def sealed(self) -> str:
        """The hash of the whole file, in hex, as it would survive a power cut. Unless `advance` has hashed the whole
        file, all of it is read now.

        A file system without holes may have returned zeros for bytes that were written later. So the file is also
        read again if the hash is not the right one.
        """
        if self._hasher.hexdigest() != self._file.etag:
            return sealed_digest(self._path, self._file)
        sync(self._path)
        return self._file.etag


class VouchedDigest:
    """As GrowingDigest, for a file of which the pieces were checked against a tree that a trusted signer has bound to
    the hash of `file`: the content is made durable, and not read."""

    def __init__(self, path: Path, file: ManifestFile) -> None:
        self._path = path
        self._file = file
        self._synced = 0
        self._turn = threading.Lock()
        self.hashed = 0
        """Bytes that are final."""

    @translated()
    def advance(self, final: int) -> bool:
        """Sync the file from time to time. Returns False: nothing is left to do."""
        with self._turn:
            self.hashed = max(self.hashed, final)
            if self.hashed - self._synced >= SYNC_EVERY:
                sync(self._path)
                self._synced = self.hashed
            return False

    @translated()
    def sealed(self) -> str:
        """The hash that the file has by its signer, once it is durable."""
        sync(self._path)
        return self._file.etag


def _first_hole(path: Path, offset: int) -> int:
    """The start of the first hole at or after `offset`; `offset` if the file is shorter or does not exist yet."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return offset
    try:
        return os.lseek(descriptor, offset, os.SEEK_HOLE)
    except OSError:  # ENXIO: the file is shorter
        return offset
    finally:
        os.close(descriptor)
