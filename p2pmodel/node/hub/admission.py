"""Allow and deny lists of repositories for a mirror."""

from collections.abc import Sequence
from dataclasses import dataclass

from p2pmodel.core.content.names import RepoId, matches


@dataclass(frozen=True, slots=True)
class Admission:
    """Repositories that match any of `allow` (all, when empty) and none of `deny`; fnmatch patterns, `Qwen/*`.

    Upper and lower case are the same, as for the hub. A repository may be requested by an older name: see `admits`.
    """

    allow: Sequence[str] = ()
    deny: Sequence[str] = ()

    def denies(self, asked: RepoId) -> bool:
        """Whether `asked` is refused by this name already, before its name at the hub is known."""
        return matches(self.deny, asked)

    def admits(self, repo: RepoId, asked: RepoId | None = None) -> bool:
        """Whether the lists admit the repository that the hub calls `repo`, requested as `asked`."""
        denied = self.denies(repo) or (asked is not None and self.denies(asked))
        return not denied and (not self.allow or matches(self.allow, repo))
