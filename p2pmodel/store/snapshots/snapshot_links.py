"""The entries of a snapshot folder: links to blobs, files in their place, and what else users put there."""

from collections.abc import Iterator

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.folder import Folder
from p2pmodel.store.manifests import blob_behind

Entry = tuple[Folder, tuple[str, ...], str, str | None]


def links_of(repo: RepoCache, commit: str) -> Iterator[Entry]:
    """Every entry of snapshot `commit`: its open folder, the folders on the way there, its name, and the etag of the
    blob that it links to, or of its own content; None if it is neither."""
    plain: dict[str, ManifestFile] | None = None
    for folder, way, name in repo.snapshot_entries(commit):
        target = folder.target(name)
        if target is not None:
            blob = blob_behind(folder.path / name, target, repo.folder / "blobs")
            yield folder, way, name, blob.name if blob else None
            continue
        if plain is None:
            manifest = repo.manifest(commit)
            plain = {file.path: file for file in manifest.files} if manifest else {}
        file = plain.get("/".join((*way, name)))
        yield folder, way, name, file.etag if file else None


def remove_refs(repo: RepoCache, commit: str) -> None:
    """Remove the refs that point at `commit`."""
    for ref, target in repo.refs().items():
        if target == commit:
            *way, name = ref.split("/")
            with repo.opened("refs", *way) as folder:
                folder.remove(name)
