"""The snapshots that clients of a node read or have asked for, in memory."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from p2pmodel.core.content.names import RepoId

SnapshotKey = tuple[RepoId, str]
"""A repository and a commit."""


class SnapshotReaders:
    """Counts the readers of each snapshot, and collects the snapshots that were used."""

    def __init__(self) -> None:
        self._reading: Counter[SnapshotKey] = Counter()
        self._used: set[SnapshotKey] = set()

    @contextmanager
    def reading(self, repo: RepoId, commit: str) -> Iterator[None]:
        """A client reads a file of the snapshot while the context lasts."""
        key = repo, commit
        self._reading[key] += 1
        self._used.add(key)
        try:
            yield
        finally:
            self._used.add(key)
            self._reading[key] -= 1
            if not self._reading[key]:
                del self._reading[key]

    def used(self, repo: RepoId, commit: str) -> None:
        """A client has asked for the snapshot."""
        self._used.add((repo, commit))

    def reads(self, repo: RepoId, commit: str) -> bool:
        """Whether a client reads it now."""
        return (repo, commit) in self._reading

    def take_used(self) -> frozenset[SnapshotKey]:
        """The snapshots that were used since the last call."""
        found, self._used = frozenset(self._used), set()
        return found
