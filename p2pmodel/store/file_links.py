"""Links by which the engine opens the files of one torrent, in the private folder.

The engine opens a file by its path, again and again. No other user can change a link of ours, and we turn it in one
step: so a staged file becomes a blob while the engine serves it, and the engine moves nothing.
"""

import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import descriptor_path, translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import boot_id
from p2pmodel.store.files.folder import Folder, open_regular
from p2pmodel.store.process_locks import host_name

KEPT_OPEN = 64
"""Descriptors that stay open after their link was turned away: the engine may be following that link just now."""
YOUNG = 60.0
"""Seconds in which a folder of links may not have its lock yet."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class FileLinks:
    """The links of one torrent in one engine, by the index of each file in the manifest. Blocks: call in a thread.

    A link to a blob leads to the file that is opened now, or through the open folder of the blobs if no other user can
    write there: a link that another user puts in the blob's place later is not followed.
    """

    @translated()
    def __init__(self, repo: RepoCache) -> None:
        self._repo = repo
        links = repo.links.folder() / "links"
        links.mkdir(exist_ok=True)
        _remove_abandoned(links)
        self._name = f"{this_machine()}-{os.getpid()}-{secrets.token_hex(8)}"
        self._parent = Folder.open(links)
        self._folder = self._parent.enter(self._name, make=True)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._folder.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._blobs: Folder | None = None
        self._held: dict[int, int] = {}
        self._turned_away: deque[int] = deque()

    @classmethod
    def to(cls, repo: RepoCache, places: Iterable[tuple[ManifestFile, Path | None]]) -> Self:
        """Links to all files of a torrent: to the staged file at each path, or without one to the blob of the file."""
        links = cls(repo)
        with ExitStack() as undo:
            undo.callback(links.remove)
            for index, (file, staged) in enumerate(places):
                if staged is None:
                    links.lead_to_blob(index, file)
                else:
                    links.lead_to(index, staged)
            undo.pop_all()
        return links

    def path(self, index: int) -> Path:
        """The path that the engine uses for file `index`."""
        return self._folder.anchor / str(index)

    @translated()
    def lead_to(self, index: int, path: Path) -> None:
        """Lead to `path`, which no other user can change. It need not exist."""
        self._turn(index, path, None)

    @translated()
    def hold(self, index: int, path: Path) -> None:
        """Lead to the file that is at `path` now, wherever it is moved."""
        self._turn_to_open(index, open_regular(path))

    @translated()
    def lead_to_blob(self, index: int, file: ManifestFile) -> None:
        """Lead to the blob of `file`. Raises LocalResource if it is not in the cache."""
        try:
            blob = self._repo.open_blob(file)
        except FileNotFoundError:
            raise LocalResource(
                f"the blob of {file.path} is no longer in {self._repo.folder}", hint="run the command again"
            ) from None
        with blob:
            folder = self._safe_blobs()
            status = folder.status(file.etag) if folder else None
            if folder and status and stat.S_ISREG(status.st_mode):
                self._turn(index, folder.anchor / file.etag, None)
            else:
                self._turn_to_open(index, os.dup(blob.fileno()))

    def remove(self) -> None:
        """Remove all links. The engine must not use them any more."""
        with suppress(OSError):
            self._parent.remove_tree(self._name)
        for descriptor in (*self._held.values(), *self._turned_away):
            os.close(descriptor)
        self._held.clear()
        self._turned_away.clear()
        for folder in (self._parent, self._folder, self._blobs):
            if folder:
                folder.close()

    def _turn_to_open(self, index: int, descriptor: int) -> None:
        self._turn(index, descriptor_path(descriptor), descriptor)

    def _turn(self, index: int, target: Path, descriptor: int | None) -> None:
        """Replace a link in one step. `descriptor`: the open file that it leads to, closed well after the next."""
        fresh = f"new-{index}"
        os.symlink(target, fresh, dir_fd=self._folder.descriptor)
        self._folder.rename(fresh, str(index))
        before = self._held.pop(index, None)
        if before is not None:
            self._turned_away.append(before)
            if len(self._turned_away) > KEPT_OPEN:
                os.close(self._turned_away.popleft())
        if descriptor is not None:
            self._held[index] = descriptor

    def _safe_blobs(self) -> Folder | None:
        """The folder of the blobs, open, if no other user can write to it, and blobs keep their names there."""
        if not (self._repo.links.symlinks or self._repo.links.hard):
            return None
        if self._blobs is None:
            try:
                with Folder.open(self._repo.cache.root) as root:
                    self._blobs = root.enter(self._repo.folder.name, "blobs")
            except FileNotFoundError:  # the snapshots have plain files
                return None
        status = os.fstat(self._blobs.descriptor)
        safe = status.st_uid in (0, os.geteuid()) and not status.st_mode & _OTHERS_WRITE
        return self._blobs if safe else None


def this_machine() -> str:
    """This machine, and its present run."""
    host = hashlib.sha256(host_name().encode()).hexdigest()[:8]
    return f"{host}-{hashlib.sha256(boot_id().encode()).hexdigest()[:8]}"


def _remove_abandoned(links: Path) -> None:
    """Remove the links of processes that were killed: no process holds the lock of their folder.

    On a network disk the lock of a process elsewhere may not count here: those of other machines are left to them.
    """
    host, _, boot = this_machine().partition("-")
    with Folder.open(links) as parent:
        for name in parent.names():
            owner = name.split("-")
            elsewhere = len(owner) == 4 and owner[0] != host
            if elsewhere or (owner[1:2] == [boot] and Path(f"/proc/{owner[2]}").exists()):
                continue
            try:
                with parent.enter(name) as folder:
                    if abs(time.time() - os.fstat(folder.descriptor).st_mtime) < YOUNG:
                        continue
                    fcntl.flock(folder.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    parent.remove_tree(name)
            except OSError:  # in use, or no way to tell
                continue
