"""Which rule of the settings holds for a repository."""

import fnmatch
from collections.abc import Iterable

from p2pmodel.config.sections.trust import TrustRule
from p2pmodel.core.content.names import RepoId


def rule_of(rules: Iterable[TrustRule], repo: RepoId) -> TrustRule | None:
    """The first of `rules` with a pattern that matches `repo`; None if nothing is required of it."""
    for rule in rules:
        if any(fnmatch.fnmatchcase(repo.folded, pattern.lower()) for pattern in rule.repos):
            return None if rule.signature == "off" else rule
    return None
