"""Snapshots of which a download has begun and not ended: no other program sees what is here of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, RepoCache, passing_over
from p2pmodel.store.files.disk import names_in
from p2pmodel.store.staging import unfinished_commits


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
    """Those of one repository: with a begun download, or with a staged content that no snapshot and no begun download
    has."""
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
