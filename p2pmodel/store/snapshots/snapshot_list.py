"""The snapshots of a cache: whole and unfinished ones, the names that may move to a newer commit, and the commit that a
user means by a name, by the whole commit, or by its beginning.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile, exact_pattern
from p2pmodel.core.content.names import COMMIT, RepoId, abbreviates, is_commit, one_commit
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, OnUnreadable, RepoCache, passing_over
from p2pmodel.store.files.disk import names_in
from p2pmodel.store.files.folder import is_regular
from p2pmodel.store.manifests import linked_blob
from p2pmodel.store.staging import unfinished_commits
from p2pmodel.store.state.verified_blobs import BlobState

_DOUBTED = (BlobState.CHANGED, BlobState.DAMAGED)


@dataclass(frozen=True, slots=True)
class CachedSnapshot:
    """A snapshot in the cache, the refs that point at it, its missing files, and those that are damaged or have changed
    since they were verified."""

    repo: RepoId
    commit: str
    refs: tuple[str, ...]
    manifest: Manifest
    missing: tuple[ManifestFile, ...]
    doubted: tuple[ManifestFile, ...] = ()


def snapshots(cache: HubCache, on_unreadable: OnUnreadable | None = None) -> Iterator[CachedSnapshot]:
    """Every snapshot with a known manifest, sorted by repository. Contents are not read. Blocks.

    Repositories that cannot be read are passed over, and go to `on_unreadable`.
    """
    for name in cache.repos(on_unreadable):
        found: list[CachedSnapshot] = []
        with passing_over(name, on_unreadable):
            found = list(_snapshots_of(cache.repo(name)))
        yield from found


def _snapshots_of(repo: RepoCache) -> Iterator[CachedSnapshot]:
    refs = repo.refs()
    for commit in repo.commits():
        manifest = repo.manifest(commit)
        if manifest is not None:
            names = tuple(sorted(ref for ref, target in refs.items() if target == commit))
            states = repo.states(manifest.files)
            missing = [file for file in manifest.files if states[file.etag] is BlobState.MISSING]
            doubted = [file for file in manifest.files if states[file.etag] in _DOUBTED]
            yield CachedSnapshot(repo.repo, commit, names, manifest, tuple(missing), tuple(doubted))


@translated()
def manifest_at(snapshot: Path) -> Manifest | None:
    """The list of a hub of the files in this snapshot folder of a cache; None for any other folder, and where only the
    files that are there are known. Blocks."""
    commit, folder = snapshot.name, snapshot.parent.parent
    if not COMMIT.fullmatch(commit) or snapshot.parent.name != "snapshots":
        return None
    try:
        repo = HubCache(folder.parent).repo(RepoId.from_cache_folder(folder.name))
    except InvalidInput:
        return None
    return repo.manifest(commit) if repo.listed_by_a_hub(commit) else None


@translated()
def is_visible(repo: RepoCache, commit: str, files: Iterable[ManifestFile]) -> bool:
    """Whether all `files` can be opened in the snapshot and none is damaged, or has changed since it was verified.
    Contents are not read."""
    return check_snapshot(repo, commit, files).sound


@dataclass(frozen=True, slots=True)
class SnapshotCheck:
    """The faults of a snapshot: paths of files by kind. `removed`: the whole folder is gone."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    removed: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.changed or self.damaged or self.removed)

    @property
    def doubted(self) -> int:
        """Number of files that may not be used."""
        return len(self.missing) + len(self.changed) + len(self.damaged)

    def __str__(self) -> str:
        kinds = (
            (self.missing, "missing"),
            (self.changed, "changed since verified"),
            (self.damaged, "damaged"),
        )
        return ", ".join(f"{len(paths)} {_files(paths)} {word}" for paths, word in kinds if paths)


def _files(paths: tuple[str, ...]) -> str:
    return "file" if len(paths) == 1 else "files"


@translated()
def check_snapshot(repo: RepoCache, commit: str, files: Iterable[ManifestFile]) -> SnapshotCheck:
    """Compare the files of a snapshot with the records, by links, sizes, times and inodes. Contents are not read."""
    folder, wanted = repo.snapshot(commit), list(files)
    states = repo.states(wanted)
    found: dict[BlobState, list[str]] = {state: [] for state in BlobState}
    for file in wanted:
        state = states[file.etag]
        found[_shown(repo, commit, file) if state.usable else state].append(file.path)
    return SnapshotCheck(
        missing=tuple(found[BlobState.MISSING]),
        changed=tuple(found[BlobState.CHANGED]),
        damaged=tuple(found[BlobState.DAMAGED]),
        removed=bool(wanted) and not folder.is_dir(),
    )


def shows(repo: RepoCache, commit: str, file: ManifestFile) -> bool:
    """Whether `file` is visible in the snapshot, and not in doubt there."""
    return _shown(repo, commit, file).usable


def _shown(repo: RepoCache, commit: str, file: ManifestFile) -> BlobState:
    """The state of the entry of `file` in a snapshot: a link to its blob, or a file in the place of one."""
    entry = repo.snapshot(commit) / file.path
    linked = linked_blob(entry, repo.folder / "blobs")
    if linked is not None:
        return BlobState.UNKNOWN if linked.name == file.etag else BlobState.MISSING
    if not is_regular(entry):
        return BlobState.MISSING
    place = repo.places.find(file)
    if place is not None and place.plain is None:
        return BlobState.UNKNOWN  # the blob's second name, or what the user has put there
    return repo.places.entry_state(commit, file)


@dataclass(frozen=True, slots=True)
class UnfinishedSnapshot:
    """A snapshot of which only a part is here, and the names that will point at it.

    `staged`: bytes of unfinished files on disk, `held`: of these and of the blobs together.
    """

    repo: RepoId
    commit: str
    refs: tuple[str, ...]
    manifest: Manifest
    staged: int
    held: int


def unfinished(cache: HubCache) -> Iterator[UnfinishedSnapshot]:
    """All of `cache` without a snapshot folder, sorted by repository. Blocks."""
    for name in sorted(names_in(cache.root)):
        try:
            repo = cache.repo(RepoId.from_cache_folder(name))
        except InvalidInput:
            continue
        with passing_over(repo.repo, None):
            yield from unfinished_in(repo)


@translated()
def unfinished_in(repo: RepoCache) -> list[UnfinishedSnapshot]:
    """The unfinished snapshots of one repository: with a begun download, or with a staged content that no snapshot and
    no begun download has."""
    staged, pointed, blobs = repo.staged.held(), repo.refs(), repo.etags()
    begun = unfinished_commits(repo.private)
    if not begun and not staged:
        return []
    left = set(staged)
    found: list[UnfinishedSnapshot] = []
    for commit in (*repo.commits(), *begun, *_recorded(repo)):
        manifest = repo.manifest(commit) if left or commit in begun else None
        if manifest is None or commit in {each.commit for each in found}:
            continue
        etags = {file.etag: file.size for file in manifest.files}
        in_turn = commit in begun or left & etags.keys()
        left -= etags.keys()
        if repo.has_snapshot(commit) or not in_turn:
            continue
        size = sum(staged[etag].size for etag in etags.keys() & staged.keys())
        held = size + sum(whole for etag, whole in etags.items() if etag in blobs)
        names = tuple(name for name in repo.staging(commit).refs() or () if pointed.get(name, commit) == commit)
        if held:
            found.append(UnfinishedSnapshot(repo.repo, commit, names, manifest, size, held))
    return found


def _recorded(repo: RepoCache) -> list[str]:
    return sorted(name.removesuffix(".json") for name in names_in(repo.private / "manifests"))


@translated()
def find_commit(repo: RepoCache, revision: str) -> str | None:
    """The commit that `revision` means in this cache, also of a snapshot of which only a part is here; None if there is
    none. Blocks.

    A ref goes first, then the name of an unfinished download, then the beginning of a commit. Raises InvalidInput where
    several fit.
    """
    found = repo.resolve(revision)
    if found is not None:
        return found
    begun = unfinished_in(repo)
    if is_commit(revision):
        known = {*(each.commit for each in begun), *unfinished_commits(repo.private)}
        return revision if revision in known else None
    named = {each.commit for each in begun if revision in each.refs}
    if named:
        return one_commit(f"{repo.repo}@{revision}", named)
    return expanded(repo, revision, (each.commit for each in begun))


def expanded(repo: RepoCache, revision: str, further: Iterable[str] = ()) -> str | None:
    """The commit in this cache, or among `further` ones, that begins with `revision`."""
    if not abbreviates(revision):
        return None
    fitting = {commit for commit in (*repo.commits(), *further) if commit.startswith(revision)}
    return one_commit(f"{repo.repo}@{revision}", fitting) if fitting else None


@dataclass(frozen=True, slots=True)
class FollowedName:
    """The name `name` of `repo` points at `commit`. `include`: patterns of the files that are here, where others are
    not; none for a whole snapshot. `files` is their number."""

    repo: RepoId
    name: str
    commit: str
    files: int
    include: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.repo}@{self.name}"


def followed(cache: HubCache, on_unreadable: OnUnreadable | None = None) -> Iterator[FollowedName]:
    """Every name of a snapshot with a known list of files, by repository. Blocks."""
    for snapshot in snapshots(cache, on_unreadable):
        include = _include(cache, snapshot)
        count = len(include) or len(snapshot.manifest.files)
        for name in snapshot.refs:
            if not is_commit(name):
                yield FollowedName(snapshot.repo, name, snapshot.commit, count, include)


def _include(cache: HubCache, snapshot: CachedSnapshot) -> tuple[str, ...]:
    """Hub clients bring single files, and then the list may have those alone."""
    if not snapshot.missing and cache.repo(snapshot.repo).listed_by_a_hub(snapshot.commit):
        return ()
    missing = {file.path for file in snapshot.missing}
    return tuple(exact_pattern(file.path) for file in snapshot.manifest.files if file.path not in missing)
