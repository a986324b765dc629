"""The snapshots of a cache."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import COMMIT, RepoId
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, OnUnreadable, RepoCache, passing_over
from p2pmodel.store.files.regular import is_regular
from p2pmodel.store.manifests import linked_blob
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
    """What is wrong with a snapshot: paths of files by what was found. `removed`: its whole folder is gone."""

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
