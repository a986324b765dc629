"""The kinds of links that the file system of a cache has. They are tried out before a transfer, not after it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from p2pmodel.errors import LocalResource
from p2pmodel.store.files.disk import temporary
from p2pmodel.store.private_folder import PrivateFolder

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Errors of a file system that cannot make a link, or no further one."""


class LinkSupport:
    """What works in one repository's part of a cache. Tried once; blocks."""

    def __init__(self, private: PrivateFolder) -> None:
        self._private = private
        self._symlinks: bool | None = None
        self._hard: bool | None = None

    @property
    def symlinks(self) -> bool:
        """Whether it has symlinks, as the hub's layout needs. Without them a snapshot has the files themselves."""
        if self._symlinks is None:
            self._symlinks = can_symlink(self._private.tmp)
        return self._symlinks

    @property
    def hard(self) -> bool:
        """Whether a file may have a second name."""
        if self._hard is None:
            self._hard = can_hard_link(self._private.tmp)
        return self._hard

    def folder(self) -> Path:
        """A private folder with symlinks: in the cache, or in the node's own state. Raises LocalResource if neither has
        them."""
        if self.symlinks:
            return self._private.made
        if (instead := self._private.made_instead()) is not None and can_symlink(instead / "tmp"):
            return instead
        raise LocalResource(
            f"neither the cache nor the state folder has symlinks, which the engine needs ({instead})",
            hint="set state_dir to a folder on a local disk",
        )


def can_symlink(folder: Path) -> bool:
    """Whether symlinks can be made in `folder`, which is made. Raises any other OSError."""
    return _can(lambda probe: probe.symlink_to("target"), folder)


def can_hard_link(folder: Path) -> bool:
    """Whether files in `folder`, which is made, can have a second name. Raises any other OSError."""
    original = temporary(folder)
    original.touch()
    try:
        return _can(lambda probe: os.link(original, probe), folder)
    finally:
        original.unlink()


def _can(make: Callable[[Path], None], folder: Path) -> bool:
    probe = temporary(folder)
    try:
        make(probe)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    probe.unlink()
    return True
