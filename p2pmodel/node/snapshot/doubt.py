"""Consequences of files of a snapshot that are missing, damaged, or changed since they were verified."""

from enum import Enum

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.errors import LocalResource
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.snapshots.snapshot_list import SnapshotCheck, check_snapshot
from p2pmodel.store.state.transfer_records import TransferRecord


class Consequence(Enum):
    """The action of a transfer after a comparison of its files with the records."""

    NONE = "none"
    RECHECK = "recheck"
    """Hash the doubted files, and download what is wrong."""
    GIVE_UP = "give up"
    """Another program removed the whole snapshot: leave it away until it is asked for."""
    RETURN = "return"
    """The removed snapshot is back."""


class SnapshotDoubt:
    """The result of the last comparison."""

    def __init__(self) -> None:
        self.check = SnapshotCheck()

    def judge(self, found: SnapshotCheck, *, asked: bool) -> Consequence:
        """Keep `found` and decide. `asked`: the user has just asked for the snapshot."""
        before, self.check = self.check, found
        if found.sound:
            return Consequence.RETURN if before.removed else Consequence.NONE
        if asked or not found.removed:
            return Consequence.RECHECK
        return Consequence.NONE if before.removed else Consequence.GIVE_UP

    def clear(self) -> None:
        """All files were verified just now."""
        self.check = SnapshotCheck()


def compared(repo: RepoCache, record: TransferRecord, manifest: Manifest | None) -> SnapshotCheck:
    """Compare the files that `record` asks for; without `manifest`, by the one in the cache. Blocks."""
    known = manifest or repo.manifest(record.commit)
    if known is None:
        return SnapshotCheck(removed=not repo.snapshot(record.commit).is_dir())
    return check_snapshot(repo, record.commit, known.select_any(record.selections))


def removed_by_another(repo: RepoCache, commit: str) -> LocalResource:
    """The error of a transfer of which the whole snapshot is gone."""
    return LocalResource(
        f"another program removed the snapshot {repo.snapshot(commit)}",
        hint=f"'p2pmodel fetch {repo.repo}@{commit}' downloads it again",
    )
