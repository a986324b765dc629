"""A Hugging Face hub cache directory and the repositories in it, laid out as huggingface_hub lays them out."""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import COMMIT, RepoId, check_revision, is_commit
from p2pmodel.core.files.home import expanded
from p2pmodel.errors import InvalidInput, LocalResource, P2PModelError
from p2pmodel.os_errors import translate, translated
from p2pmodel.store.content_locks import BlobLocks
from p2pmodel.store.files.disk import names_in
from p2pmodel.store.files.file_system import LinkSupport
from p2pmodel.store.files.folder import Folder, is_regular
from p2pmodel.store.files.space import CHOOSE_ANOTHER, check_writable
from p2pmodel.store.manifests import read_manifest
from p2pmodel.store.private_folder import PrivateFolder, is_writable
from p2pmodel.store.snapshots.blob_places import BlobPlaces
from p2pmodel.store.staging import StagedContents, Staging
from p2pmodel.store.state.verified_blobs import BlobMarks, BlobState, Fingerprint, VerifiedBlobs, fingerprint

BlobKey = tuple[RepoId, str]
"""A repository and the etag of one of its files."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

OnUnreadable = Callable[[RepoId, P2PModelError], None]
"""Gets a repository that cannot be read, and the reason. In a shared cache it may be another user's."""

CORRUPT_FOR = 24 * 3600.0
"""Seconds after corruption in which a client may still hold wrong bytes and resume behind them."""


@contextmanager
def passing_over(repo: RepoId, on_unreadable: OnUnreadable | None) -> Iterator[None]:
    """Report a failure to read `repo` to `on_unreadable`, if given, instead of raising it."""
    try:
        yield
    except (OSError, LocalResource) as error:
        if on_unreadable is not None:
            on_unreadable(repo, translate(error))


class SnapshotPolicy(Protocol):
    """Decides which files may become visible as a part of a snapshot."""

    def check(
        self, manifest: Manifest, files: Sequence[ManifestFile], read: Callable[[ManifestFile], bytes | None]
    ) -> None:
        """Raise unless they may. `read` returns the content of a file that is in the cache, else None."""


class HubCache:
    """One hub cache directory, e.g. ~/.cache/huggingface/hub. One object per directory and process: it owns the locks.

    `state_dir` is the node's folder of state: it takes what cannot be written to the cache. `policy` says what may
    become visible in it. The constructor does not touch the disk. An OSError is raised as LocalResource.
    """

    def __init__(self, root: Path, state_dir: Path | None = None, *, policy: "SnapshotPolicy | None" = None) -> None:
        self.policy = policy
        # Absolute, with its links unresolved: users see snapshot paths.
        self.root = Path(os.path.abspath(expanded(root)))  # noqa: PTH100
        digest = hashlib.sha256(bytes(self.root)).hexdigest()[:16]
        self.state = state_dir / "caches" / digest if state_dir else None
        self.locks = BlobLocks(self.root / ".locks")
        self._repos: dict[RepoId, RepoCache] = {}

    def repo(self, repo: RepoId) -> "RepoCache":
        """The part of the cache for `repo`, also if there is nothing yet."""
        return self._repos.setdefault(repo, RepoCache(self, repo))

    @property
    def writable(self) -> bool:
        """Whether this user can write to it, or make it."""
        return is_writable(self.root)

    def check_usable(self, repo: RepoId | None = None) -> bool:
        """Whether it can be written to. Raises LocalResource if it can be neither written to nor read, and if it has
        nothing of `repo` to read."""
        there = self.root.is_dir() and os.access(self.root, os.R_OK | os.X_OK, effective_ids=True)
        if there and not self.writable and (repo is None or self.held(repo) is not None):
            return False
        check_writable(self.root)
        return True

    @translated()
    def held(self, repo: RepoId) -> "RepoCache | None":
        """The part of the cache for `repo`, in the spelling in which it is here; None if it is not. Blocks."""
        folder = repo.cache_folder
        if (self.root / folder).is_dir():
            return self.repo(repo)
        for name in names_in(self.root):
            if name.lower() == folder.lower() and name.startswith(f"{repo.kind}--"):
                return self.repo(RepoId.from_cache_folder(name))
        return None

    def known(self, repo: RepoId) -> "RepoCache":
        """As `held`, or the part for `repo` as it is spelled if there is nothing yet. Blocks."""
        return self.held(repo) or self.repo(repo)

    @translated()
    def repos(self, on_unreadable: OnUnreadable | None = None) -> list[RepoId]:
        """Repositories with at least one snapshot, sorted. Those that cannot be read go to `on_unreadable`."""
        found = []
        for name in names_in(self.root):
            try:
                repo = RepoId.from_cache_folder(name)
            except InvalidInput:
                continue
            if repo.cache_folder == name:
                with passing_over(repo, on_unreadable):
                    if self.repo(repo).commits():
                        found.append(repo)
        return sorted(found)


class RepoCache:
    """One repository in the cache: `models--org--name/{refs,blobs,snapshots,trees}` and a private folder.

    Other users may write to all but the private folder. So names in it are used through open directories, only regular
    files are read, and the only links that are followed are those of the hub's layout.
    """

    def __init__(self, cache: HubCache, repo: RepoId) -> None:
        self.cache = cache
        self.repo = repo
        self.folder = cache.root / repo.cache_folder
        instead = cache.state / repo.cache_folder if cache.state else None
        self._private = PrivateFolder(cache.root, repo.cache_folder, instead)
        self.staged = StagedContents(self._private)
        """The unfinished files, by content."""
        self.served = BlobMarks(self._private, "last-served")
        """The blobs that a pull-through mirror downloaded, and when each was last served."""
        self._corrupt = BlobMarks(self._private, "corrupt")
        self._verified = VerifiedBlobs(self._private)
        self.places = BlobPlaces(cache.root, self, self._verified)
        """Where contents lie."""
        self.naming = threading.Lock()
        """Held while a blob gets its name and its record: two files of a snapshot may have the same content."""
        self.links = LinkSupport(self._private)
        """The kinds of links that its file system has."""

    @property
    def private(self) -> Path:
        """The private folder, for reading. huggingface_hub ignores it and deletes it with the repository."""
        return self._private.existing

    @property
    def private_places(self) -> tuple[Path, ...]:
        """The private folders for reading, the one for writing first."""
        return self._private.places

    @property
    def made_private(self) -> Path:
        """The private folder, for writing. Raises OSError, and LocalResource if it is not safe to use."""
        return self._private.made

    @property
    def writable(self) -> bool:
        """Whether this user can write to the repository's part of the cache."""
        return self._private.writable

    @translated()
    def require_writable(self) -> None:
        """Raise LocalResource unless this user can write to the repository's part of the cache."""
        place = self.folder if self.folder.exists() else self.cache.root
        if self.writable and place == self.folder:
            place = self.tmp
        check_writable(place)
        if not self.writable:
            raise LocalResource(f"cannot write to {place}", hint=CHOOSE_ANOTHER)

    @property
    def tmp(self) -> Path:
        """A private folder for files that are about to be moved to their places."""
        return self._private.tmp

    @contextmanager
    def opened(self, *names: str, make: bool = False) -> Iterator[Folder]:
        """The folder `names[0]/names[1]/...` of the repository. Raises OSError, also for links of other users."""
        with (
            Folder.open(self.cache.root, make=make) as root,
            root.enter(self.repo.cache_folder, *names, make=make) as folder,
        ):
            yield folder

    @translated()
    def refs(self) -> dict[str, str]:
        """Ref name -> commit, e.g. `main`, `v1.0`, `refs/pr/1`. A ref may exist before its snapshot."""
        found = {}
        with self.listed("refs") as root:
            for folder, way, name in root.walk() if root else ():
                commit = _read_ref(folder, name)
                if commit is not None:
                    found["/".join((*way, name))] = commit
        return found

    @translated()
    def commits(self) -> list[str]:
        """Commits with a snapshot folder, complete or not, sorted."""
        with self.listed("snapshots") as folder:
            return sorted(n for n in folder.names() if COMMIT.fullmatch(n) and folder.has_folder(n)) if folder else []

    @translated()
    def resolve(self, revision: str) -> str | None:
        """The commit of `revision`, a ref name or a commit, in this cache; None if it is not in the cache.

        Raises InvalidInput for an invalid revision.
        """
        if is_commit(revision):
            return revision if self.has_snapshot(revision) else None
        *way, name = check_revision(revision).split("/")
        with self.listed("refs", *way) as folder:
            return _read_ref(folder, name) if folder else None

    def has_snapshot(self, commit: str) -> bool:
        """Whether there is a snapshot folder of `commit`."""
        with self.listed("snapshots") as folder:
            return folder is not None and folder.has_folder(commit)

    @contextmanager
    def listed(self, *names: str) -> Iterator[Folder | None]:
        """As `opened`, for reading: None if there is no such folder, or a link of another user in its place."""
        with ExitStack() as stack:
            folder: Folder | None = None
            try:
                folder = stack.enter_context(self.opened(*names))
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
            yield folder

    def manifest(self, commit: str) -> Manifest | None:
        """The manifest of snapshot `commit`, complete or not; None if the cache has no record of it.

        `private` is known only for snapshots that p2pmodel downloaded or imported.
        """
        return read_manifest(self.repo, self.folder, self.private_places, commit)

    def listed_by_a_hub(self, commit: str) -> bool:
        """Whether `manifest(commit)` is the list of a hub, not merely of the files in the cache."""
        name = f"{commit}.json"
        recorded = any((place / "manifests" / name).is_file() for place in self.private_places)
        return recorded or is_regular(self.folder / "trees" / name)

    def snapshot(self, commit: str) -> Path:
        """Where the snapshot folder of `commit` is, or would be."""
        return self.folder / "snapshots" / commit

    def key(self, file: ManifestFile) -> BlobKey:
        """Identifies the content of `file` in this cache."""
        return self.repo, file.etag

    def blob_path(self, file: ManifestFile) -> Path:
        """Where the blob of `file` belongs; possibly a symlink into the hub's shared store: never write to it."""
        return self.folder / "blobs" / file.etag

    def blob(self, file: ManifestFile) -> Path | None:
        """The blob of `file`, or the target of its link, if it has the right size; without one a plain file of a
        snapshot with this content. Its content is not read.

        A link counts only if it leads into the hub's shared store.
        """
        place = self.places.find(file)
        return place.path if place else None

    def open_blob(self, file: ManifestFile) -> BinaryIO:
        """Open what `blob` finds, to send its bytes to others. Raises OSError.

        No other file can be opened in its place, whatever other users do in the cache meanwhile.
        """
        return self.places.open(file)

    def snapshot_entries(self, commit: str) -> Iterator[tuple[Folder, tuple[str, ...], str]]:
        """Every entry of a snapshot: its open folder, the folders on the way there, its name."""
        with self.listed("snapshots", commit) as snapshot:
            yield from snapshot.walk() if snapshot else ()

    @translated()
    def etags(self) -> frozenset[str]:
        """Names of all blobs, whatever their content, and of the contents of plain files."""
        return frozenset(names_in(self.folder / "blobs")) | self.places.plain.etags()

    def missing(self, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """The `files` without a blob in the cache."""
        return [file for file in files if self.blob(file) is None]

    def staging(self, commit: str) -> Staging:
        """What the download of `commit` keeps in the private folder."""
        return Staging(self._private, self.staged, commit)

    def mark_corrupt(self, file: ManifestFile) -> None:
        """Clients may have read wrong bytes of `file`, and may request the rest later. Blocks."""
        self._corrupt.set(file)

    def corrupted_at(self, file: ManifestFile) -> float | None:
        """When bytes of `file` that could be read last proved wrong, in seconds since the epoch. Blocks."""
        return self._corrupt.time(file.etag)

    def recently_corrupt(self, file: ManifestFile) -> bool:
        """Whether a client may hold wrong bytes of `file` from this cache: it must get the whole file, not the rest of
        it. Blocks."""
        at = self._corrupt.time(file.etag)
        return at is not None and time.time() - at < CORRUPT_FOR

    def usable(self, file: ManifestFile) -> Path | None:
        """As `blob`, but None also for a blob that is damaged, or has changed since it was verified."""
        blob = self.blob(file)
        return blob if blob is not None and self.state_of(file, fingerprint(blob)).usable else None

    def lacking(self, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """The `files` without a usable blob."""
        wanted = list(files)
        states = self.states(wanted)
        return [file for file in wanted if not states[file.etag].usable]

    def states(self, files: Iterable[ManifestFile]) -> dict[str, BlobState]:
        """The states of the blobs of `files` by etag, from their sizes, times and inodes. Contents are not read."""
        places = {file.etag: self.places.find(file) for file in files}
        found = {etag: (place, fingerprint(place.path) if place else None) for etag, place in places.items()}
        return self.places.states(found)

    def state_of(self, file: ManifestFile, found: Fingerprint | None) -> BlobState:
        """The state of a blob of `file` with the fingerprint `found`; None: it is missing."""
        return self.places.states({file.etag: (self.places.find(file), found)})[file.etag]

    def fingerprint(self, file: ManifestFile) -> Fingerprint | None:
        """The fingerprint of the blob of `file` now; None if there is none of the right size."""
        blob = self.blob(file)
        return None if blob is None else fingerprint(blob)

    def is_verified(self, file: ManifestFile) -> bool:
        """Whether the blob of `file` was verified before and has not changed since (size, times, inode)."""
        return self.state_of(file, self.fingerprint(file)) is BlobState.VERIFIED

    @translated()
    def mark_verified(self, files: Iterable[ManifestFile]) -> None:
        """Record that the blobs of `files`, as they are now, have the right hash."""
        places = [place for file in files if (place := self.places.find(file)) is not None]
        found = {place.key: fingerprint(place.path) for place in places}
        self._verified.add({key: now for key, now in found.items() if now is not None})

    @translated()
    def record_verified(self, found: Mapping[str, Fingerprint]) -> None:
        """Record that the blobs with these fingerprints, by their keys, have the right hash."""
        self._verified.add(found)

    @translated()
    def record_place(self, key: str, found: Fingerprint, *, right: bool) -> None:
        """Record the result of hashing the content with this key in the journal. `found`: its fingerprint before it was
        read."""
        (self._verified.add if right else self._verified.add_damaged)({key: found})

    @translated()
    def forget_verified(self, file: ManifestFile) -> None:
        """Remove the record: the blob of `file` is gone."""
        self._verified.forget(file.etag)


def _read_ref(folder: Folder, name: str) -> str | None:
    try:
        text = folder.read(name, 64).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if COMMIT.fullmatch(text) else None
