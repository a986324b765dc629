"""Whether a folder can take what is about to be written to it, asked before the work starts."""

import shutil
from pathlib import Path

from p2pmodel.errors import LocalResource, NoSpace
from p2pmodel.os_errors import translate
from p2pmodel.store.disk import temporary, translated

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@translated()
def check_space(folder: Path, needed: int) -> None:
    """Raise NoSpace unless the disk of `folder` (which need not exist yet) has `needed` bytes free for us."""
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise NoSpace(
            f"{folder} has {human(free)} free, {human(needed)} are needed",
            hint="free some, or name another cache with --cache-dir",
        )


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
        raise LocalResource(
            f"cannot write to {folder}: {error.strerror}", hint="check its owner and mode, or name another directory"
        ) from error


def human(size: float) -> str:
    """`size` bytes in decimal units, as disks are sold: 1.5 GB."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def _existing(folder: Path) -> Path:
    return next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
