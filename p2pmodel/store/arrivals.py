"""Files that a pull-through mirror pulls one by one as they are asked for, and what became of wrong ones.

They are staged by content, not by commit: a pull that nobody waited for to the end is resumed by whichever commit
names the same content next.
"""

import time
from pathlib import Path

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.eviction import mark_served
from p2pmodel.store.files.disk import translated
from p2pmodel.store.files.partial_file import remove_record
from p2pmodel.store.publish import publish_blob, publish_snapshot
from p2pmodel.store.state.revisions import revisions_at

TAINTED_FOR = 24 * 3600.0
"""Seconds for which clients are taken to still hold the wrong bytes that they may have been sent."""


def arriving_path(repo: RepoCache, file: ManifestFile) -> Path:
    """Where the content of `file` is assembled."""
    return repo.private / "arriving" / f"{file.etag}.part"


def publish_arrived(repo: RepoCache, manifest: Manifest, file: ManifestFile) -> None:
    """Give the assembled and verified `file` its place among the blobs and in the snapshot."""
    staged = arriving_path(repo, file)
    publish_blob(repo, file, staged)
    mark_served(repo, file)
    remove_record(staged)
    show(repo, manifest, file)


@translated()
def show(repo: RepoCache, manifest: Manifest, file: ManifestFile) -> None:
    """Let the snapshot have `file`, whose blob is here, and let the refs that mean this commit point to it."""
    if not (repo.snapshot(manifest.commit) / file.path).is_symlink():
        publish_snapshot(repo, manifest, [file], revisions_at(repo, manifest.commit))


@translated()
def taint(repo: RepoCache, file: ManifestFile) -> None:
    """Wrong bytes of `file` have been shown to clients, who may come back for the rest."""
    mark = _mark(repo, file)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def is_tainted(repo: RepoCache, file: ManifestFile) -> bool:
    """Whether a client may hold wrong bytes of `file` from us, so that giving it the rest would make a wrong file."""
    try:
        return time.time() - _mark(repo, file).stat().st_mtime < TAINTED_FOR
    except OSError:
        return False


def _mark(repo: RepoCache, file: ManifestFile) -> Path:
    return repo.private / "tainted" / file.etag
