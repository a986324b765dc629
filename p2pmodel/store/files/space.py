"""Checks before the work starts that a folder has space and is writable."""

import os
import shutil
from pathlib import Path

from p2pmodel.core.sizes import human
from p2pmodel.errors import LocalResource, NoSpace
from p2pmodel.os_errors import named, translate, translated
from p2pmodel.store.files.disk import temporary

CHOOSE_ANOTHER = "check its owner and mode, or choose another directory"

BLOCK = 512
"""Bytes per unit of `st_blocks`."""


@translated()
def check_space(folder: Path, needed: int) -> None:
    """Raise NoSpace unless the disk of `folder` (which need not exist yet) has `needed` bytes free for this user."""
    free = free_bytes(folder)
    if free < needed:
        raise no_space(folder, free, needed)


def no_space(folder: Path, free: int, needed: int) -> NoSpace:
    """The error of a disk that has `free` bytes at `folder`."""
    return NoSpace(
        f"{named(str(folder))} has {human(free)} free, {human(needed)} are needed",
        hint="free some space, or name a folder on another disk",
    )


def free_bytes(folder: Path) -> int:
    """Bytes free for this user on the disk of `folder`, which need not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def check_writable(folder: Path) -> None:
    """Make `folder` if missing. Raises LocalResource with its path unless files can be made in it."""
    try:
        probe = temporary(folder)
        probe.touch()
        probe.unlink()
    except OSError as error:
        known = translate(error)
        if isinstance(known, NoSpace):
            raise known from error
        check_directory(folder)
        raise LocalResource(f"cannot write to {folder}: {error.strerror}", hint=CHOOSE_ANOTHER) from error


@translated()
def check_directory(folder: Path) -> None:
    """Raise LocalResource with its path if `folder` or a parent of it is not a directory."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise LocalResource(f"{there} is not a directory", hint="remove it, or choose another directory")


@translated()
def check_readable(folder: Path) -> None:
    """Raise LocalResource with its path if `folder` is there and cannot be listed, or is not a directory."""
    check_directory(folder)
    if folder.exists():
        with os.scandir(folder):
            pass


def allocated(path: Path) -> int:
    """Bytes that `path` occupies on the disk, 0 if it does not exist: of a sparse file, the written bytes."""
    try:
        return path.lstat().st_blocks * BLOCK
    except FileNotFoundError:
        return 0


def _existing(folder: Path) -> Path:
    return next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
