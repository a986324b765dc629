"""Allow and deny lists of repositories for a mirror."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from p2pmodel.core.content.names import RepoId


@dataclass(frozen=True, slots=True)
class Admission:
    """Repositories that match any of `allow` (all, when empty) and none of `deny`; fnmatch patterns, `Qwen/*`."""

    allow: Sequence[str] = ()
    deny: Sequence[str] = ()

    def admits(self, repo: RepoId) -> bool:
        """Whether the lists admit `repo`."""

        def matches(patterns: Sequence[str]) -> bool:
            return any(fnmatchcase(repo.value, pattern) for pattern in patterns)

        return (not self.allow or matches(self.allow)) and not matches(self.deny)
