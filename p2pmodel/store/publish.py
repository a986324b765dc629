"""Publication of verified files as a snapshot that every client of the cache sees: blobs, links, tree, refs last."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import check_revision, is_commit
from p2pmodel.errors import IntegrityError, P2PModelError
from p2pmodel.os_errors import named, translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.content_locks import PATIENCE, POLL
from p2pmodel.store.files.disk import put, sync
from p2pmodel.store.files.folder import Folder, open_regular
from p2pmodel.store.files.range_set import remove_record
from p2pmodel.store.files.space import check_space
from p2pmodel.store.manifests import record_manifest, record_tree
from p2pmodel.store.snapshots.snapshot_files import copies_needed, copy_verified, show_file
from p2pmodel.store.snapshots.snapshot_list import is_visible
from p2pmodel.store.state.verified_blobs import Fingerprint, fingerprint_of

_CACHEDIR_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by p2pmodel.
# For information about cache directory tags, see:
#\thttps://bford.info/cachedir/
"""


@asynccontextmanager
async def blob_lock(repo: RepoCache, file: ManifestFile, *, patience: float = PATIENCE) -> AsyncIterator[None]:
    """Hold the hub's lock of this blob. Raises Unavailable after `patience` seconds without it."""
    async with some_blob_locks(repo, [file], patience=patience):
        yield


@asynccontextmanager
async def some_blob_locks(
    repo: RepoCache, files: Sequence[ManifestFile], *, patience: float = PATIENCE
) -> AsyncIterator[frozenset[ManifestFile]]:
    """Hold the hub's locks of the `files` with free locks, at least of one. Raises Unavailable after `patience`
    seconds without any. A waiting caller holds none, so no two wait for each other."""
    locks = repo.cache.locks
    deadline = time.monotonic() + patience
    while True:
        held = await _take_free(repo, files)
        if held:
            break
        if time.monotonic() >= deadline:
            raise locks.busy(repo.repo, files[0], patience)
        await asyncio.sleep(POLL)
    try:
        yield frozenset(held)
    finally:
        for file in held:
            locks.release(repo.repo, file)


async def _take_free(repo: RepoCache, files: Sequence[ManifestFile]) -> list[ManifestFile]:
    taking = asyncio.ensure_future(asyncio.to_thread(translated()(repo.cache.locks.try_acquire_some), repo.repo, files))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        with suppress(P2PModelError):
            for file in await taking:  # no other code would release them
                repo.cache.locks.release(repo.repo, file)
        raise


@translated()
def publish_blob(repo: RepoCache, file: ManifestFile, staged: Path, *, patience: float = PATIENCE) -> Path:
    """Move `staged`, which the caller has verified, to its place among the blobs, and remove its record.

    An existing blob stays if it is verified. Any other file of that name is replaced, never written to: it may be a
    link into the hub's shared store. Raises Unavailable if another process holds the lock for `patience` seconds.
    """
    size = staged.stat().st_size
    if size != file.size:
        raise IntegrityError(f"{named(str(staged))} has {size} bytes, but {file.path} should have {file.size}")
    sync(staged)
    repo.cache.locks.acquire(repo.repo, file, patience)
    try:
        if repo.is_verified(file):
            staged.unlink()
            remove_record(staged)
            return repo.blob_path(file)
        with repo.naming, repo.opened("blobs", make=True) as blobs:
            repo.staged.claims.check()
            found = name_blob(blobs, file, staged)
            blobs.sync()
            repo.record_verified({file.etag: found})
    finally:
        repo.cache.locks.release(repo.repo, file)
    remove_record(staged)
    return repo.blob_path(file)


def name_blob(blobs: Folder, file: ManifestFile, staged: Path) -> Fingerprint:
    """Move `staged`, which is verified and synced, to its name in the folder `blobs`. Raises OSError, IntegrityError.

    The name never has other content: the file is renamed, or on another device copied beside it and hashed before.
    Returns its fingerprint, not that of what another user may put there a moment later.
    """
    with os.fdopen(open_regular(staged), "rb") as content:
        try:
            blobs.take(staged, file.etag)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            found = copy_verified(blobs, file.etag, file, content)
            staged.unlink()
            return found
        return fingerprint_of(os.fstat(content.fileno()))


@translated()
def check_publish_space(repo: RepoCache, needed: int, files: Iterable[ManifestFile] = ()) -> None:
    """Raise LocalResource unless `files` can be published, and NoSpace unless `needed` bytes can be staged, and copied
    where links are missing or the blobs are on another device. Without `needed` bytes there may be nothing to publish.
    """
    if not needed and not repo.writable:
        return
    repo.require_writable()
    check_space(repo.folder, needed + copies_needed(repo, files))
    with repo.opened("blobs", make=True) as blobs:
        if needed and os.fstat(blobs.descriptor).st_dev != repo.made_private.stat().st_dev:
            check_space(blobs.path, needed)


@translated()
def publish_snapshot(
    repo: RepoCache, manifest: Manifest, files: Iterable[ManifestFile], refs: Sequence[str] = ()
) -> Path:
    """Make `files` of `manifest` (their blobs are in the cache) visible as a snapshot; returns its folder.

    `files` may be a part of the manifest; the recorded tree lists all files, so that the hub's client detects missing
    ones. Every step is atomic, and a reader that follows a ref finds its snapshot. In a cache that cannot be written to
    nothing is done for files that are visible; refs stay as they are.
    """
    present = list(files)
    repo.places.plain.know(manifest)
    if not repo.writable and is_visible(repo, manifest.commit, present):
        return repo.snapshot(manifest.commit)
    for absent in repo.missing(present):
        raise IntegrityError(
            f"the blob of {absent.path} is not in {repo.folder}",
            hint="run the same command again: it downloads the file",
        )
    if repo.cache.policy is not None:
        repo.cache.policy.check(manifest, present, lambda file: _content(repo, file))
    _tag(repo)
    with repo.opened("snapshots", manifest.commit, make=True) as snapshot:
        by_folder: dict[tuple[str, ...], list[ManifestFile]] = {}
        for file in present:
            by_folder.setdefault(tuple(file.path.split("/")[:-1]), []).append(file)
        for way, inside in by_folder.items():
            with snapshot.enter(*way, make=True) as folder:
                for file in inside:
                    show_file(repo, manifest.commit, folder, file)
    repo.places.plain.forget()
    with repo.opened("trees", make=True) as trees:
        record_tree(trees, manifest, via=repo.tmp)
    record_manifest(repo.made_private, manifest)
    for name in refs:
        point_ref(repo, name, manifest.commit)
    return repo.snapshot(manifest.commit)


def _content(repo: RepoCache, file: ManifestFile) -> bytes | None:
    blob = repo.usable(file)
    return blob.read_bytes() if blob is not None else None


def _tag(repo: RepoCache) -> None:
    with Folder.open(repo.cache.root, make=True) as root:
        if root.status("CACHEDIR.TAG") is None:
            put(root, "CACHEDIR.TAG", _CACHEDIR_TAG, via=repo.tmp)


def point_ref(repo: RepoCache, name: str, commit: str) -> None:
    """Point ref `name` at `commit`, which must have a snapshot: 40 hex digits without newline, as the hub writes them.
    Does nothing if `name` is a commit."""
    if is_commit(name):
        return
    *way, last = check_revision(name).split("/")
    with repo.opened("refs", *way, make=True) as folder:
        status = folder.status(last)
        if repo.resolve(name) != commit or status is None or status.st_size != len(commit):
            put(folder, last, commit.encode(), via=repo.tmp)
