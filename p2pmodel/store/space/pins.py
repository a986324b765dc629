"""Pins: revisions of a repository that stay in the cache. A pinned name protects the commit that it points at now."""

from contextlib import suppress
from urllib.parse import quote, unquote

from p2pmodel.core.content.names import is_commit
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import names_in

_FOLDER = "pins"


@translated()
def pin(repo: RepoCache, revision: str) -> None:
    """Pin `revision`, a name or a whole commit."""
    folder = repo.made_private / _FOLDER
    folder.mkdir(exist_ok=True)
    (folder / _file_name(revision)).touch()


@translated()
def unpin(repo: RepoCache, revision: str) -> bool:
    """Remove the pin; whether there was one."""
    found = False
    for place in repo.private_places:
        with suppress(FileNotFoundError):
            (place / _FOLDER / _file_name(revision)).unlink()
            found = True
    return found


@translated()
def pins(repo: RepoCache) -> tuple[str, ...]:
    """The pinned revisions, sorted."""
    names = {name for place in repo.private_places for name in names_in(place / _FOLDER)}
    return tuple(sorted(unquote(name) for name in names))


@translated()
def pinned_commits(repo: RepoCache) -> frozenset[str]:
    """The commits that the pins protect now."""
    refs = repo.refs()
    found = (name if is_commit(name) else refs.get(name) for name in pins(repo))
    return frozenset(commit for commit in found if commit is not None)


def _file_name(revision: str) -> str:
    return quote(revision, safe="").replace(".", "%2E")
