"""A repository's part of the cache on another disk. A link in its place leads there, which all clients follow.

Invariants, to re-check when editing:
1. The repository's name leads to a complete folder all the time, also after kill -9: copy and link are exchanged in one
   step (`exchange`).
2. The copy is on the disk, and every blob of a snapshot in it has the right hash, before that.
3. Nothing that another process wrote meanwhile is lost: the old folder is compared with what was copied, once before
   the exchange and once after it.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import Conflict, IntegrityError, InvalidInput, NotFound
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.disk import copy_sparse, sync
from p2pmodel.store.files.file_system import aside_of, exchange
from p2pmodel.store.files.folder import Folder
from p2pmodel.store.files.parallel import Count, default_jobs, ignore, in_parallel
from p2pmodel.store.files.space import free_bytes, no_space
from p2pmodel.store.private_folder import NAME as PRIVATE
from p2pmodel.store.process_locks import LockSearch
from p2pmodel.store.space.readers import serving_processes
from p2pmodel.store.space.usage import disk_bytes
from p2pmodel.store.staging import unfinished_commits
from p2pmodel.store.state.verified_blobs import BlobState
from p2pmodel.store.verify import rehash

_WORK = ".p2pmodel-moving-"
"""Beginning of the name of the folder for the copy, and of the old folder until it is removed."""
_NOT_LINKABLE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}

_Status = tuple[int, int, int, str]
_Listing = dict[str, _Status]
"""By relative path: mode, size and mtime in ns, and the target of a link."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """A move of the folder `source` to `target`, both real folders. `place` is its name in the cache."""

    repo: RepoCache
    place: Path
    source: Path
    target: Path

    @property
    def size(self) -> int:
        """Bytes on disk of the repository."""
        return disk_bytes(self.source)


@translated()
def planned_relocation(repo: RepoCache, parent: Path | None) -> Relocation:
    """The move of `repo` to the folder `parent`; None: back into the cache. A repository that is there already stays,
    and `relocate` removes what a killed move has left.

    Raises NotFound, InvalidInput for a folder that cannot be used, Conflict for one that has such a repository, and
    NoSpace.
    """
    place, root = repo.folder, repo.cache.root.resolve()
    if not os.path.lexists(place) and aside_of(place).is_dir():
        aside_of(place).rename(place)
    if not place.is_dir():
        raise NotFound(f"{repo.repo} is not in this cache", hint="'p2pmodel ls' lists the snapshots")
    source = place.resolve()
    if parent is not None and not parent.is_dir():
        raise InvalidInput(f"{parent} is not a folder", hint="name an existing folder on the other disk")
    above = root if parent is None else parent.resolve()
    if parent is not None and above.is_relative_to(root):
        raise InvalidInput(f"{parent} is in the cache", hint="name a folder outside it; --back moves into the cache")
    move = Relocation(repo, root / place.name, source, above / place.name)
    if move.source == move.target:
        return move
    if parent is not None and os.path.lexists(move.target) and not _is_rest(move):
        raise Conflict(f"{move.target} exists", hint="remove it, or name another folder")
    if above.stat().st_dev != source.stat().st_dev and (free := free_bytes(above)) < move.size:
        raise no_space(above, free, move.size)
    return move


@translated()
def relocate(move: Relocation, *, on_bytes: Count = ignore) -> None:
    """Carry out `move`. `on_bytes` gets the bytes that are copied or hashed. Blocks.

    Raises Conflict while another process uses or changes the repository, and IntegrityError for a damaged blob; then
    nothing has moved.
    """
    with ExitStack() as stack:
        _hold(move, stack)
        _clear(move)
        if move.source == move.target:
            return
        listing = _listing(move.source)
        work = move.target.parent / f"{_WORK}{move.place.name}"
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        copy = work / move.place.name
        _copy(move.source, copy, on_bytes)
        _check(RepoCache(HubCache(work), move.repo.repo), on_bytes)
        if _listing(move.source) != listing:
            raise _changed(move)
        (_switch_back if move.target == move.place else _switch)(move, copy, listing)


def _hold(move: Relocation, stack: ExitStack) -> None:
    """Keep other processes of p2pmodel, and clients of the hub, from writing to the repository."""
    repo = move.repo
    locks = repo.cache.root / ".locks" / move.place.name
    locks.mkdir(parents=True, exist_ok=True)
    search = LockSearch(locks / "p2pmodel-move.lock")
    if (moving := search.take()) is None:
        raise Conflict(f"{search.holder or 'another process'} moves {repo.repo}", hint="let it finish first")
    stack.callback(moving.release)
    if serving_processes(repo, (os.getpid(),)):
        raise Conflict(
            f"another process of p2pmodel serves {repo.repo}",
            hint="pause its transfer or stop the process, then move it",
        )
    repo.require_writable()
    for commit in sorted({*repo.commits(), *unfinished_commits(repo.private)}):
        search = LockSearch(repo.staging(commit).lock_path())
        lock = search.take()
        if lock is None:
            raise Conflict(f"{search.holder or 'another process'} works on {repo.repo}", hint="let it finish first")
        stack.callback(lock.release)
        manifest = repo.manifest(commit)
        files = manifest.files if manifest else ()
        taken = repo.cache.locks.try_acquire_some(repo.repo, files)
        for file in taken:
            stack.callback(repo.cache.locks.release, repo.repo, file)
        if len(taken) < len(files):
            raise Conflict(f"another client downloads files of {repo.repo}", hint="let it finish first")


def _is_rest(move: Relocation) -> bool:
    """Whether a killed move left the target: nothing leads to it, and its copy was about to be exchanged."""
    return (move.target / _WORK).exists() and move.source != move.target


def _clear(move: Relocation) -> None:
    """Remove what a killed move left."""
    name = f"{_WORK}{move.place.name}"
    for rest in (move.place.with_name(name), move.target.with_name(name), aside_of(move.place)):
        _remove(rest)
    if _is_rest(move):
        shutil.rmtree(move.target)
    (move.source / _WORK).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _entries(source: Path) -> Iterator[tuple[Folder, tuple[str, ...], str]]:
    """Every entry to copy. Lock files and the private folders for temporary files and links are left out: they belong
    to processes."""
    with Folder.open(source) as root:
        for folder, way, name in root.walk():
            passing = len(way) > 1 and way[0].startswith(PRIVATE) and way[1] in ("tmp", "links")
            if not (passing or name.endswith(".lock") or name == _WORK):
                yield folder, way, name


def _listing(source: Path) -> _Listing:
    found: _Listing = {}
    for folder, way, name in _entries(source):
        status = folder.status(name)
        if status is not None:
            target = folder.target(name) or ""
            found["/".join((*way, name))] = (status.st_mode, status.st_size, status.st_mtime_ns, target)
    return found


def _copy(source: Path, copy: Path, on_bytes: Count) -> None:
    """Copy a tree, synced. Files share their content on one file system; those with several names keep them."""
    made: dict[tuple[int, int], Path] = {}
    copy.parent.mkdir(mode=0o700)
    _make_folder(copy, source.stat().st_mode)
    for folder, way, name in _entries(source):
        there = copy
        for depth, each in enumerate(way):
            there = there / each
            if depth == len(way) - 1 and not there.is_dir():
                _make_folder(there, os.fstat(folder.descriptor).st_mode)
            elif not there.is_dir():
                _make_folder(there, (source / Path(*way[: depth + 1])).stat().st_mode)
        status = folder.status(name)
        if status is None:
            continue
        if stat.S_ISLNK(status.st_mode):
            (there / name).symlink_to(folder.target(name) or "")
        elif stat.S_ISREG(status.st_mode):
            _copy_file(folder, there / name, made.setdefault((status.st_dev, status.st_ino), there / name), status)
            on_bytes(status.st_size)
    for parent, _, _ in os.walk(copy):
        sync(Path(parent))


def _make_folder(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(stat.S_IMODE(mode))


def _copy_file(folder: Folder, path: Path, first: Path, status: os.stat_result) -> None:
    if first != path:
        os.link(first, path)
        return
    if folder.path.name == "blobs" and _linked(folder, path):
        return
    copy_sparse(folder.anchor / path.name, path)
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    sync(path)


def _linked(folder: Folder, path: Path) -> bool:
    """Give the file of that name in `folder` a second name, if the file systems are one. Not for records, to which the
    check of the copy writes."""
    try:
        os.link(path.name, path, src_dir_fd=folder.descriptor, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_LINKABLE:
            raise
        return False
    return True


def _check(copy: RepoCache, on_bytes: Count) -> None:
    """Hash the blobs of all snapshots of the copy that are not known to be right as they are."""
    manifests = [manifest for commit in copy.commits() if (manifest := copy.manifest(commit)) is not None]
    files = {file.etag: file for manifest in manifests for file in manifest.files}
    states = copy.states(files.values())
    unknown = [file for etag, file in files.items() if states[etag] not in (BlobState.VERIFIED, BlobState.MISSING)]
    damaged: list[str] = []

    def work(file: ManifestFile, count: Count) -> None:
        if not rehash(copy, file, count):
            damaged.append(file.path)

    in_parallel(sorted(unknown, key=lambda file: -file.size), work, default_jobs(), on_bytes)
    if damaged:
        raise IntegrityError(
            f"{min(damaged)} of {copy.repo} is damaged: nothing was moved",
            hint="see 'p2pmodel verify'; 'p2pmodel fetch' repairs it",
        )


def _switch(move: Relocation, copy: Path, listing: _Listing) -> None:
    """Put the copy at its place on the other disk, and a link to it at the repository's name."""
    (copy / _WORK).touch()
    copy.rename(move.target)
    sync(move.target.parent)
    old = move.place.with_name(f"{_WORK}{move.place.name}")
    old.symlink_to(move.target)
    _exchanged(move, move.place, old, listing, undo=lambda: _remove(old))
    (move.target / _WORK).unlink()
    _remove(old)
    if move.source != move.place:  # it was on a third disk: `old` was the link to it
        shutil.rmtree(move.source)


def _switch_back(move: Relocation, copy: Path, listing: _Listing) -> None:
    """Put the copy at the repository's name, in the place of the link."""
    _exchanged(move, move.place, copy, listing, undo=lambda: None)
    shutil.rmtree(move.source)


def _exchanged(move: Relocation, place: Path, other: Path, listing: _Listing, *, undo: Callable[[], None]) -> None:
    exchange(place, other)
    sync(place.parent)
    old = other if move.source == move.place else move.source
    if _listing(old) != listing:
        exchange(place, other)
        if move.target != move.place:
            shutil.rmtree(move.target)
        undo()
        raise _changed(move)


def _changed(move: Relocation) -> Conflict:
    return Conflict(
        f"another program changed {move.place} meanwhile: nothing was moved", hint="run the same command again"
    )
