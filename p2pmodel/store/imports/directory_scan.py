"""The files of a plain directory that can become a snapshot."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import check_path
from p2pmodel.core.content.names import COMMIT, printable
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.store.manifests import linked_blob


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to import: its path in the repository, where its bytes are (links resolved), and their number.

    `etag` is the hub's hash: the name of the blob that the file links to, if the directory is a snapshot in a hub
    cache.
    """

    path: str
    real: Path
    size: int
    etag: str | None = None


@translated()
def scan_directory(source: Path) -> list[SourceFile]:
    """Every file below `source`, sorted by path. Raises InvalidInput or IntegrityError for an unusable entry.

    `.git` and `.cache/huggingface` are skipped at any depth, as in huggingface_hub's upload_folder. Links to files are
    followed if they stay inside `source` or, from a snapshot in a hub cache, lead to that cache's blobs.
    """
    if not source.is_dir():
        raise InvalidInput(f"{printable(str(source))} is not a directory")
    root = source.resolve()
    allowed = [root, *_blob_folders(root)]
    found = [_source_file(root, entry, allowed) for entry in _entries(root)]
    if not found:
        raise InvalidInput(f"no file in {printable(str(source))}")
    return sorted(found, key=lambda f: f.path)


def _blob_folders(root: Path) -> tuple[Path, ...]:
    """The folders that links of a snapshot lead to: its repository's blobs, and the cache's shared store."""
    if root.parent.name != "snapshots" or not COMMIT.fullmatch(root.name):
        return ()
    repo = root.parent.parent
    return (repo / "blobs", repo.parent / "blobs")


def _entries(root: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(root, onerror=fail):
        at = Path(parent)
        folders[:] = [n for n in folders if not _skipped(at, n)]
        for name in folders:
            if (at / name).is_symlink():
                raise InvalidInput(
                    f"{_shown(root, at / name)} is a link to a directory", hint="put the files themselves there"
                )
        yield from (at / name for name in names if not _skipped(at, name))


def _skipped(parent: Path, name: str) -> bool:
    return name == ".git" or (name == "huggingface" and parent.name == ".cache")


def _source_file(root: Path, entry: Path, allowed: list[Path]) -> SourceFile:
    path = check_path(entry.relative_to(root).as_posix())
    etag = None
    real = entry
    if entry.is_symlink():
        real = _follow(root, entry, allowed)
        blob = linked_blob(entry, allowed[1]) if len(allowed) > 1 else None
        etag = blob.name if blob else None
    status = real.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(f"{printable(path)} is not a regular file", hint="remove it from the directory")
    return SourceFile(path, real, status.st_size, etag)


def _follow(root: Path, entry: Path, allowed: list[Path]) -> Path:
    where = f"{_shown(root, entry)} -> {printable(str(entry.readlink()))}"
    try:
        real = entry.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, in Python before 3.13
        raise InvalidInput(f"broken link {where}", hint="remove it or repair it") from None
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise InvalidInput(f"the link {where} leaves the directory", hint="put the file itself there")
    return real


def _shown(root: Path, entry: Path) -> str:
    return printable(entry.relative_to(root).as_posix())
