"""Patterns of repositories, as fnmatch has them: `Qwen/*`. Upper and lower case are the same, as for the hub."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from p2pmodel.core.content.names import RepoId

EXCEPT = "!"
"""Begin of a pattern of repositories that are left out."""


def matches(patterns: Iterable[str], repo: RepoId) -> bool:
    """Whether one of `patterns` matches `repo`."""
    return any(fnmatchcase(repo.folded, pattern.lower()) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class RepoRoute:
    """The repositories that match a pattern, and none with `!` before it; without plain patterns all others."""

    patterns: Sequence[str] = ()

    def takes(self, repo: RepoId) -> bool:
        """Whether `repo` is one of them."""
        left_out = [pattern[1:] for pattern in self.patterns if pattern.startswith(EXCEPT)]
        wanted = [pattern for pattern in self.patterns if not pattern.startswith(EXCEPT)]
        return not matches(left_out, repo) and (not wanted or matches(wanted, repo))
