"""Snapshots in folders of the user's choice, in the layout of `hf download --local-dir`.

Files are copies, which share their blocks with the cache where the file system can do that: a program may change them.
Beside them `.cache/huggingface/download/PATH.metadata` has the commit, the etag and the time of each, so that the hub's
clients and later copies leave unchanged files alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.clones import copy_content, share_blocks
from p2pmodel.store.files.disk import temporary
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
        if self._root.exists() and not self._root.is_dir():
            raise InvalidInput(
                f"{printable(str(self._root))} is not a folder", hint="name a folder, or one that does not exist yet"
            )

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
