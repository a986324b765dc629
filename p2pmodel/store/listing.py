"""What a cache holds, a snapshot at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import RepoId
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, RepoCache


@dataclass(frozen=True, slots=True)
class CachedSnapshot:
    """A snapshot in the cache: which names point at it, and those of its files that are not here."""

    repo: RepoId
    commit: str
    refs: tuple[str, ...]
    manifest: Manifest
    missing: tuple[ManifestFile, ...]


def snapshots(cache: HubCache) -> Iterator[CachedSnapshot]:
    """Every snapshot whose files are known, sorted by repository. Contents are not looked at. Blocks."""
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
    """Whether every one of `files` can be opened in the snapshot, as far as names and sizes tell."""
    folder = repo.snapshot(commit)
    return all(repo.blob(file) is not None and (folder / file.path).is_file() for file in files)
