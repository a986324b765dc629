"""A look at a snapshot that reads no content: whether its files are there, with the right sizes, behind their links."""

from collections.abc import Collection
from dataclasses import dataclass

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.snapshots.snapshot_list import SnapshotCheck, check_snapshot
from p2pmodel.store.state.verified_blobs import BlobState

_LACKING = (BlobState.MISSING, BlobState.DAMAGED)


@dataclass(frozen=True, slots=True)
class QuickCheck:
    """What a look found. `lacking`: bytes of the files that are missing or damaged, each content once; `staged`: how
    many of them an earlier download has left; `unverified`: files that are there, and that this machine has never
    hashed; `listed`: the files are those of a hub's list. Without one only the files that are there are known."""

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
