"""Atomic writes: a reader, or a run after kill -9, sees the old or the new content and never a part."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of a call that has only a descriptor."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def temporary(folder: Path) -> Path:
    """An unused name in `folder`, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{os.getpid()}-{secrets.token_hex(8)}"


def write_atomic(path: Path, data: bytes, *, via: Path, durable: bool = True) -> None:
    """Replace the content of `path` by `data` in one step, through a temporary name in the folder `via`.

    `durable`: the write also survives a power cut, not only a kill of this process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = temporary(via)
    try:
        with naming(path), fresh.open("wb") as out:
            out.write(data)
            out.flush()
            if durable:
                os.fsync(out.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)  # it exists only after a failure


def link_atomic(path: Path, target: str, *, via: Path) -> None:
    """Make `path`, in an existing folder, a symlink to `target` in one step; an existing entry is replaced."""
    try:
        path.symlink_to(target)
    except FileExistsError:
        _replace_by_link(path, target, via)


def _replace_by_link(path: Path, target: str, via: Path) -> None:
    if path.is_symlink() and str(path.readlink()) == target:
        return
    fresh = temporary(via)
    fresh.symlink_to(target)
    try:
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def names_in(folder: Path) -> list[str]:
    """The names in `folder`; none if it does not exist."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names only: no Path object for each of thousands
    except FileNotFoundError:
        return []


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, at any depth."""
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def sync(path: Path) -> None:
    """Sync a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any | None:
    """The JSON value in `path`; None if it is absent, unreadable or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def boot_id() -> str:
    """An id that changes when this machine restarts. Written but unsynced data is certain to exist only while it
    stays the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
