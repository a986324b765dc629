"""The entries of a snapshot: links to the blobs, or the files themselves where the file system has no symlinks.

Without symlinks a blob gets a second name in the snapshot. Where there are no hard links either, it moves there, as
with huggingface_hub, and further paths get copies. A copy has its name only once its hash is right, and what another
program has put in the place of an entry stays only if its hash is right.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import BinaryIO

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import IntegrityError
from p2pmodel.os_errors import naming
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import link_atomic, temporary
from p2pmodel.store.files.file_system import NO_LINKS
from p2pmodel.store.files.folder import Folder
from p2pmodel.store.manifests import blob_behind
from p2pmodel.store.snapshots.blob_places import BlobPlace
from p2pmodel.store.state.verified_blobs import BlobState, Fingerprint, fingerprint_of
from p2pmodel.store.verify import rehash_entry

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


CHUNK = MIB


def copies_needed(repo: RepoCache, files: Iterable[ManifestFile]) -> int:
    """Bytes of the copies that a snapshot of `files` needs, beside their blobs: where there are no links, one for each
    further path of a content. Blocks."""
    if repo.links.symlinks or repo.links.hard:
        return 0
    seen: set[str] = set()
    needed = 0
    for file in files:
        needed += file.size if file.etag in seen else 0
        seen.add(file.etag)
    return needed


def show_file(repo: RepoCache, commit: str, folder: Folder, file: ManifestFile) -> None:
    """Make `file`, which is in the cache, visible in the open `folder` of the snapshot `commit`. Raises OSError, and
    IntegrityError for a copy that fails its hash."""
    *way, name = file.path.split("/")
    place = repo.places.find(file)
    if place is not None and place.plain is None and repo.links.symlinks:
        link_atomic(folder, name, "../" * (2 + len(way)) + f"blobs/{file.etag}", via=repo.tmp)
        return
    if place is None or _is_shown(repo, commit, file, place):
        return
    with repo.places.open_place(place) as content:
        before = os.fstat(content.fileno())
        verified = repo.state_of(file, fingerprint_of(before)) is BlobState.VERIFIED
        own = repo.places.entry(commit, file).key
        if _link(repo, folder, name, place, content):
            keys = (place.key, own) if place.plain else (place.key,)
            _renew(repo, keys, content, before, verified=verified)
            return
        if place.plain is None and not repo.links.hard:
            _move(repo, folder, name, place, content)
            _renew(repo, (own,), content, before, verified=verified)
        else:
            found = copy_verified(folder, name, file, content)
            repo.record_place(own, found, right=True)
    repo.places.plain.forget()


def _is_shown(repo: RepoCache, commit: str, file: ManifestFile, place: BlobPlace) -> bool:
    """Whether the entry is `place` itself, another name of it, or a copy with the right hash."""
    entry = repo.places.entry(commit, file)
    try:
        own, original = entry.path.lstat(), place.path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(own.st_mode) or own.st_size != file.size:
        return False
    return os.path.samestat(own, original) or rehash_entry(repo, commit, file)


def _link(repo: RepoCache, folder: Folder, name: str, place: BlobPlace, content: BinaryIO) -> bool:
    """Give the open file at `place` a second name; False where there are no hard links."""
    if not repo.links.hard:
        return False
    fresh = temporary(repo.tmp)
    try:
        with Folder.open(repo.cache.root) as root, root.enter(*place.way) as source:
            os.link(place.name, fresh, src_dir_fd=source.descriptor, follow_symlinks=False)
        _check_same(fresh.lstat(), content, place)
        folder.take(fresh, name)
    except OSError as error:
        if error.errno not in NO_LINKS | {errno.EXDEV}:
            raise
        return False
    finally:
        fresh.unlink(missing_ok=True)  # a rename to another name of the same file leaves both
    return True


def _move(repo: RepoCache, folder: Folder, name: str, place: BlobPlace, content: BinaryIO) -> None:
    with Folder.open(repo.cache.root) as root, root.enter(*place.way) as source:
        os.replace(place.name, name, src_dir_fd=source.descriptor, dst_dir_fd=folder.descriptor)
    try:
        _check_same(folder.status(name), content, place)
    except OSError:
        folder.remove(name)
        raise


def _check_same(status: os.stat_result | None, content: BinaryIO, place: BlobPlace) -> None:
    if status is None or not os.path.samestat(status, os.fstat(content.fileno())):
        raise OSError(errno.ELOOP, "another file has taken the place of", str(place.path))


def _renew(repo: RepoCache, keys: Iterable[str], content: BinaryIO, before: os.stat_result, *, verified: bool) -> None:
    """A further name changes the ctime of a file: its record stays valid if nothing else has changed."""
    after = os.fstat(content.fileno())
    same = fingerprint_of(after)[:3] == fingerprint_of(before)[:3]
    for key in keys if verified and same else ():
        repo.record_place(key, fingerprint_of(after), right=True)


def copy_verified(folder: Folder, name: str, file: ManifestFile, content: BinaryIO) -> Fingerprint:
    """Copy `content` to `name` in `folder`, which it gets once its hash is right. Returns its fingerprint."""
    # Clients do not read files with this ending, and 'hf cache prune' removes them.
    fresh = f"{file.etag}.{secrets.token_hex(4)}.incomplete"
    descriptor = folder.open_file(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    with ExitStack() as undo, naming(folder.path / fresh), os.fdopen(descriptor, "r+b") as copy:
        undo.callback(folder.remove, fresh)
        shutil.copyfileobj(content, copy, CHUNK)
        copy.flush()
        os.fsync(copy.fileno())
        _check_copy(copy, file)
        folder.rename(fresh, name)
        undo.pop_all()
        return fingerprint_of(os.fstat(copy.fileno()))


def _check_copy(copy: BinaryIO, file: ManifestFile) -> None:
    hasher = file.hasher()
    copy.seek(0)
    while data := copy.read(CHUNK):
        hasher.update(data)
    if hasher.hexdigest() != file.etag:
        raise IntegrityError(f"a copy of {file.path} on this disk differs from it", hint="check the disk")
