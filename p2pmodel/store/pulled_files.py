"""Files that a pull-through mirror downloads one by one: from the partial file to the blob and the snapshot."""

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.publish import publish_blob, publish_snapshot
from p2pmodel.store.snapshots.snapshot_list import shows
from p2pmodel.store.state.revisions import revisions_at


def publish_pulled(repo: RepoCache, manifest: Manifest, file: ManifestFile) -> None:
    """Publish `file`, which is assembled at its staged path and verified, as a blob and in the snapshot."""
    publish_blob(repo, file, repo.staged.path_of(file))
    repo.served.set(file)
    add_to_snapshot(repo, manifest, file)


@translated()
def add_to_snapshot(repo: RepoCache, manifest: Manifest, file: ManifestFile) -> None:
    """Link `file`, which has its blob in the cache, into its snapshot, and point the refs of this commit at it."""
    if not shows(repo, manifest.commit, file):
        publish_snapshot(repo, manifest, [file], revisions_at(repo, manifest.commit))
