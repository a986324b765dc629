"""Snapshots in plain folders outside the cache: for users, as `hf download --local-dir` has them, and for web servers.

Files of a local folder are copies, which share their blocks with the cache where the file system can do that: a
program may change them. Beside them `.cache/huggingface/download/PATH.metadata` has the commit, the etag and the time
of each, so that the hub's clients and later copies leave unchanged files alone.

A folder for web servers has static files in the layout of a hub. A file gets its name only when all of it is there and
has the hub's hash. Only one program writes to a folder at a time.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import printable
from p2pmodel.core.files.home import expanded
from p2pmodel.errors import Conflict, IntegrityError, InvalidInput
from p2pmodel.os_errors import translate, translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import names_in, sync, temporary, write_atomic
from p2pmodel.store.files.file_system import copy_content, share_blocks
from p2pmodel.store.files.space import check_space

_TOLERANCE = 1.0
"""Seconds that a file may be newer than its record, as the hub's clients allow."""


@dataclass(frozen=True, slots=True)
class PlacedFiles:
    """The folder, how many files were copied, and how many were there already."""

    folder: Path
    copied: int
    unchanged: int


class LocalFolder:
    """The folder `root`; methods block and raise NoSpace, LocalResource or InvalidInput."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._records = root / ".cache" / "huggingface" / "download"

    def check(self) -> None:
        """Raise InvalidInput if `root` cannot be the folder."""
        _check_folder(self._root)

    @translated()
    def place(
        self,
        repo: RepoCache,
        commit: str,
        files: Sequence[ManifestFile],
        *,
        clock: Callable[[], float] = time.time,
    ) -> PlacedFiles:
        """Copy the blobs of `files` to their paths below the folder. Files that are there unchanged stay."""
        self.check()
        self._records.mkdir(parents=True, exist_ok=True)
        ignored = self._records.parent / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*")
        changed = [file for file in files if not self._is_placed(file)]
        if changed and not self._shares_blocks(repo, changed[0]):
            check_space(self._root, sum(file.size for file in changed))
        for file in changed:
            self._copy(repo, file)
        for file in files:
            self._record(file).parent.mkdir(parents=True, exist_ok=True)
            self._record(file).write_text(f"{commit}\n{file.etag}\n{clock()}\n")
        return PlacedFiles(self._root, len(changed), len(files) - len(changed))

    def _record(self, file: ManifestFile) -> Path:
        return self._records / f"{file.path}.metadata"

    def _is_placed(self, file: ManifestFile) -> bool:
        """Whether the file is there and has not changed since its record was written."""
        try:
            _, etag, written = self._record(file).read_text().splitlines()[:3]
            status = (self._root / file.path).lstat()
            return etag == file.etag and status.st_size == file.size and status.st_mtime <= float(written) + _TOLERANCE
        except (OSError, ValueError):
            return False

    def _shares_blocks(self, repo: RepoCache, file: ManifestFile) -> bool:
        probe = temporary(self._records)
        try:
            with repo.open_blob(file) as blob, probe.open("xb") as copy:
                return share_blocks(blob, copy)
        finally:
            probe.unlink(missing_ok=True)

    def _copy(self, repo: RepoCache, file: ManifestFile) -> None:
        target = self._root / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = temporary(self._records)
        try:
            with repo.open_blob(file) as blob:
                copy_content(blob, fresh, file.size)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)


PRIVATE = ".p2pmodel-export"
"""Folder of unfinished files, below the root; web servers need not serve it."""
_BLOCK = 4 << 20
_MODE = 0o644


class ExportFolder:
    """The folder `root`."""

    info = "/index.json"
    """The suffix of the name of a repository's information: a folder cannot have the name of a file, too."""

    def __init__(self, root: Path) -> None:
        self._root = expanded(root).absolute()
        self._private = self._root / PRIVATE

    def __str__(self) -> str:
        return str(self._root)

    def check(self) -> None:
        """Raise InvalidInput if `root` cannot be the folder."""
        _check_folder(self._root)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Use the folder alone while the context lasts, without the rests of earlier runs. Raises Conflict."""
        with translated():
            self._private.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._private / "lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Conflict(f"another export writes to {self._root}", hint="wait for its end") from None
        try:
            for name in names_in(self._private / "unfinished"):
                (self._private / "unfinished" / name).unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    @translated()
    def check_space(self, size: int) -> None:
        """Raise NoSpace without room for `size` bytes."""
        check_space(self._root, size)

    @translated()
    def read(self, name: str) -> bytes | None:
        """The content of the small file `name`; None if there is none."""
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @translated()
    def holds(self, name: str, file: ManifestFile) -> bool:
        """Whether `name` is there. Its content had the hash of `file` when it got its name."""
        path = self._root / name
        return path.is_file() and path.stat().st_size == file.size

    @translated()
    def copy(self, source: str, name: str, file: ManifestFile) -> bool:
        """Make `name` another name of `source`, which has the content of `file`; False if that is not possible."""
        if not self.holds(source, file):
            return False
        with self._fresh(name) as fresh:
            try:
                os.link(self._root / source, fresh)
            except OSError:
                return False
        return True

    @translated()
    def put_file(self, name: str, source: BinaryIO, file: ManifestFile, count: Callable[[int], None]) -> None:
        """Copy the content of `file` from `source`. `count` gets the bytes of each block. Raises IntegrityError."""
        with self._fresh(name) as fresh:
            digest = file.hasher()
            with fresh.open("xb") as out:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    out.write(block)
                    count(len(block))
                out.flush()
                os.fsync(out.fileno())
            if digest.hexdigest() != file.etag:
                raise IntegrityError(f"{file.path} has changed in the cache", hint="'p2pmodel verify' repairs it")
            fresh.chmod(_MODE)

    @translated()
    def put(self, name: str, data: bytes) -> None:
        """Replace the small file `name`."""
        path = self._root / name
        write_atomic(path, data, via=self._private / "unfinished")
        path.chmod(_MODE)

    @contextmanager
    def _fresh(self, name: str) -> Iterator[Path]:
        """A path for a new file, which becomes `name` if the block makes it and ends without an error."""
        target, fresh = self._root / name, temporary(self._private / "unfinished")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield fresh
            if fresh.exists():
                fresh.replace(target)
                sync(target.parent)
        finally:
            fresh.unlink(missing_ok=True)


def _check_folder(root: Path) -> None:
    try:
        there = next(path for path in (root, *root.parents) if path.exists())
        is_other = not there.is_dir()
    except OSError as error:
        raise translate(error) from None
    if is_other:
        raise InvalidInput(
            f"{printable(str(there))} is not a folder", hint="name a folder, or one that does not exist yet"
        )
