"""The commit that a user means: by a name, by the whole commit, or by its beginning."""

from collections.abc import Iterable

from p2pmodel.core.content.names import abbreviates, is_commit, one_commit
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.staging import unfinished_commits
from p2pmodel.store.state.unfinished import unfinished_in


@translated()
def find_commit(repo: RepoCache, revision: str) -> str | None:
    """The commit that `revision` means in this cache, also of a snapshot of which only a part is here; None if there is
    none. Blocks.

    A ref goes first, then the name of an unfinished download, then the beginning of a commit. Raises InvalidInput where
    several fit.
    """
    found = repo.resolve(revision)
    if found is not None:
        return found
    begun = unfinished_in(repo)
    if is_commit(revision):
        known = {*(each.commit for each in begun), *unfinished_commits(repo.private)}
        return revision if revision in known else None
    named = {each.commit for each in begun if revision in each.refs}
    if named:
        return one_commit(f"{repo.repo}@{revision}", named)
    return expanded(repo, revision, (each.commit for each in begun))


def expanded(repo: RepoCache, revision: str, further: Iterable[str] = ()) -> str | None:
    """The commit in this cache, or among `further` ones, that begins with `revision`."""
    if not abbreviates(revision):
        return None
    fitting = {commit for commit in (*repo.commits(), *further) if commit.startswith(revision)}
    return one_commit(f"{repo.repo}@{revision}", fitting) if fitting else None
