"""The snapshots of a cache."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import RepoId
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, RepoCache


@dataclass(frozen=True, slots=True)
class CachedSnapshot:
    """A snapshot in the cache, the refs that point at it, and its missing files."""

    repo: RepoId
    commit: str
    refs: tuple[str, ...]
    manifest: Manifest
    missing: tuple[ManifestFile, ...]


def snapshots(cache: HubCache) -> Iterator[CachedSnapshot]:
    """Every snapshot with a known manifest, sorted by repository. Contents are not read. Blocks."""
    for name in cache.repos():
        repo = cache.repo(name)
        refs = repo.refs()
        for commit in repo.commits():
            manifest = repo.manifest(commit)
            if manifest is not None:
                names = tuple(sorted(ref for ref, target in refs.items() if target == commit))
                yield CachedSnapshot(name, commit, names, manifest, tuple(repo.missing(manifest.files)))


@translated()
def is_visible(repo: RepoCache, commit: str, files: Iterable[ManifestFile]) -> bool:
    """Whether all `files` can be opened in the snapshot, by names and sizes."""
    folder = repo.snapshot(commit)
    return all(repo.blob(file) is not None and (folder / file.path).is_file() for file in files)
