"""The entries of a snapshot folder: links to blobs, and what else users put there."""

from collections.abc import Iterator

from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.folder import Folder
from p2pmodel.store.manifests import blob_behind

Entry = tuple[Folder, tuple[str, ...], str, str | None]


def links_of(repo: RepoCache, commit: str) -> Iterator[Entry]:
    """Every entry of snapshot `commit`: its open folder, the folders on the way there, its name, and the etag of the
    blob that it links to; None if it is no link to a blob."""
    with repo.listed("snapshots", commit) as snapshot:
        for folder, way, name in snapshot.walk() if snapshot else ():
            target = folder.target(name)
            blob = blob_behind(folder.path / name, target, repo.folder / "blobs") if target is not None else None
            yield folder, way, name, blob.name if blob else None


def remove_refs(repo: RepoCache, commit: str) -> None:
    """Remove the refs that point at `commit`."""
    for ref, target in repo.refs().items():
        if target == commit:
            *way, name = ref.split("/")
            with repo.opened("refs", *way) as folder:
                folder.remove(name)
