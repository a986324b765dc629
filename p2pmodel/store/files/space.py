"""Whether a folder can take what is about to be written to it, asked before the work starts."""

import shutil
from pathlib import Path

from p2pmodel.core.sizes import human
from p2pmodel.errors import LocalResource, NoSpace
from p2pmodel.os_errors import translate, translated
from p2pmodel.store.files.disk import temporary


@translated()
def check_space(folder: Path, needed: int) -> None:
    """Raise NoSpace unless the disk of `folder` (which need not exist yet) has `needed` bytes free for us."""
    free = free_bytes(folder)
    if free < needed:
        raise NoSpace(
            f"{folder} has {human(free)} free, {human(needed)} are needed",
            hint="free some, or name another cache with --cache-dir",
        )


def free_bytes(folder: Path) -> int:
    """Bytes free for us on the disk of `folder`, which need not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def check_writable(folder: Path) -> None:
    """Make `folder` if missing and raise LocalResource, naming it, unless files can be made in it."""
    try:
        probe = temporary(folder)
        probe.touch()
        probe.unlink()
    except OSError as error:
        known = translate(error)
        if isinstance(known, NoSpace):
            raise known from error
        check_directory(folder)
        raise LocalResource(
            f"cannot write to {folder}: {error.strerror}", hint="check its owner and mode, or name another directory"
        ) from error


@translated()
def check_directory(folder: Path) -> None:
    """Raise LocalResource, naming it, if something that is no directory stands in the place of `folder`."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise LocalResource(f"{there} is not a directory", hint="remove it, or name another directory")


def allocated(path: Path) -> int:
    """Bytes that `path` occupies on the disk, 0 if it does not exist: of a sparse file, what was written to it."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _existing(folder: Path) -> Path:
    return next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
