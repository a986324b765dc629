"""A folder with static files in the layout of a hub, for plain web servers.

A file gets its name only when all of it is there and has the hub's hash. Only one program writes to a folder at a time.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import Conflict, IntegrityError
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import names_in, sync, temporary, write_atomic
from p2pmodel.store.files.space import check_space

PRIVATE = ".p2pmodel-export"
"""Folder of unfinished files, below the root; web servers need not serve it."""
_BLOCK = 4 << 20
_MODE = 0o644


class ExportFolder:
    """The folder `root`."""

    info = "/index.json"
    """What follows the name of a repository's information: a folder cannot have the name of a file, too."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self._private = self._root / PRIVATE

    def __str__(self) -> str:
        return str(self._root)

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
