"""Atomic writes: a reader, or a run after kill -9, sees the old or the new content and never a part."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from p2pmodel.core.plain_json import parse_json
from p2pmodel.os_errors import naming
from p2pmodel.store.files.folder import Folder, open_regular, read_regular

_BLOCK = 1 << 20


def temporary(folder: Path) -> Path:
    """An unused name in `folder`, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{os.getpid()}-{secrets.token_hex(8)}"


def write_atomic(path: Path, data: bytes, *, via: Path, durable: bool = True) -> None:
    """Replace the content of `path` by `data` in one step, through a temporary name in the folder `via`.

    `durable`: the write also survives a power cut, not only a kill of this process. Other users must not be able to
    write to the folder of `path`: see `put`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _written(path, data, via, durable=durable) as fresh:
        fresh.replace(path)
    if durable:
        sync(path.parent)


def put(folder: Folder, name: str, data: bytes, *, via: Path) -> None:
    """As `write_atomic`, durably, to `name` in a folder that other users may write to; `via` is private."""
    with _written(folder.path / name, data, via, durable=True) as fresh:
        folder.take(fresh, name)
    folder.sync()


@contextmanager
def _written(path: Path, data: bytes, via: Path, *, durable: bool) -> Iterator[Path]:
    """A new file in `via` with `data`, to be moved to `path`."""
    fresh = temporary(via)
    try:
        with naming(path), fresh.open("xb") as out:
            out.write(data)
            out.flush()
            if durable:
                os.fsync(out.fileno())
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)  # it exists only after a failure


def link_atomic(folder: Folder, name: str, target: str, *, via: Path) -> None:
    """Make `name` in `folder` a symlink to `target` in one step; an existing entry is replaced."""
    try:
        os.symlink(target, name, dir_fd=folder.descriptor)
    except FileExistsError:
        _replace_by_link(folder, name, target, via)


def _replace_by_link(folder: Folder, name: str, target: str, via: Path) -> None:
    if folder.target(name) == target:
        return
    fresh = temporary(via)
    fresh.symlink_to(target)
    try:
        folder.take(fresh, name)
    finally:
        fresh.unlink(missing_ok=True)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy the data of the regular file `source` to `target`, which is made; holes stay holes."""
    with os.fdopen(open_regular(source), "rb") as original, target.open("xb") as copy:
        size = os.fstat(original.fileno()).st_size
        os.truncate(copy.fileno(), size)
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(original.fileno(), offset, os.SEEK_DATA)
            except OSError:  # ENXIO: no data after offset
                return
            end = os.lseek(original.fileno(), offset, os.SEEK_HOLE)
            os.lseek(original.fileno(), offset, os.SEEK_SET)
            os.lseek(copy.fileno(), offset, os.SEEK_SET)
            while offset < end and (data := os.read(original.fileno(), min(_BLOCK, end - offset))):
                os.write(copy.fileno(), data)
                offset += len(data)
            offset = max(offset, end)


def names_in(folder: Path) -> list[str]:
    """The names in `folder`; none if it does not exist."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names only: no Path object for each of thousands
    except FileNotFoundError:
        return []


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset` of an open file."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


def sync(path: Path) -> None:
    """Sync a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any | None:
    """The JSON value in the regular file `path`; None if it is absent, unreadable or damaged."""
    try:
        return parse_json(read_regular(path))
    except (OSError, ValueError):
        return None


def boot_id() -> str:
    """An id that changes when this machine restarts. Written but unsynced data is certain to exist only while it
    stays the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
