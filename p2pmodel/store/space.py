"""Whether a folder can take what is about to be written to it, asked before the work starts."""

import shutil
from pathlib import Path

from p2pmodel.domain.sizes import human
from p2pmodel.errors import LocalResource, NoSpace
from p2pmodel.os_errors import translate
from p2pmodel.store.disk import temporary, translated


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


def _existing(folder: Path) -> Path:
    return next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
