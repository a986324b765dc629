"""A bundle: one tar archive with the torrent of a snapshot, signed statements about it, and its files or none.

The members follow in one order: `bundle.json`, `manifest.json`, `snapshot.torrent`, `snapshot.torrent.signatures`, then
`files/PATH` in the order of the manifest. Nothing in it is trusted: what is read here is checked by its reader.
The same snapshot and signatures give the same bytes, so that an export goes on where it stopped.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from p2pmodel.core.content.manifest import MAX_FILES, ManifestFile
from p2pmodel.core.content.names import printable
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import IntegrityError, InvalidInput, NotFound
from p2pmodel.os_errors import translated
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.space import check_space

SUFFIX = ".tar"
VERSION = 1
ABOUT, MANIFEST, TORRENT = "bundle.json", "manifest.json", "snapshot.torrent"
SIGNATURES = f"{TORRENT}.signatures"
FILES = "files/"

_MAX_HEAD = 64 << 20
"""Bytes of a member before the files: the largest .torrent."""
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_READ = 1 << 20
_AGAIN = "copy it again, or export it again with 'p2pmodel bundle export'"

Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class BundledFile:
    """Where a file lies in a bundle."""

    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle. `files` by path: those of which the header is there; the last may be cut off."""

    torrent: bytes = field(repr=False)
    signatures: bytes = field(repr=False)
    files: Mapping[str, BundledFile] = field(repr=False)
    _descriptor: int = -1

    def read(self, file: BundledFile, offset: int, length: int) -> bytes:
        """Bytes of a file; fewer at the end of an archive that is cut off. Blocks."""
        return os.pread(self._descriptor, min(length, file.size - offset), file.offset + offset)


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """The bundle at `path`. Raises NotFound, InvalidInput or IntegrityError. Blocks."""
    shown = printable(str(path))
    try:
        archive = path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no file {shown}") from None
    except OSError as error:
        raise InvalidInput(f"{shown} cannot be read: {error.strerror}") from None
    with archive:
        try:
            yield _bundle(archive)
        except tarfile.TarError:
            raise IntegrityError(f"{shown} is not a bundle, or its beginning is damaged", hint=_AGAIN) from None


@translated()
def write_bundle(
    path: Path,
    *,
    manifest: bytes,
    torrent: bytes,
    signatures: bytes,
    files: Sequence[tuple[ManifestFile, Path]],
    count: Count,
) -> None:
    """Write a bundle with the content of `files`, each with its blob.

    It grows as `PATH.part`. What an earlier run has left there is hashed, and kept as far as it is right. `count` gets
    the bytes of files; an exception that it raises stops the export. Raises IntegrityError for a damaged blob, NoSpace,
    LocalResource. Blocks.
    """
    about = json.dumps({"bundle": VERSION, "files": len(files)}).encode()
    head = ((ABOUT, about), (MANIFEST, manifest), (TORRENT, torrent), (SIGNATURES, signatures))
    part = path.with_name(f"{path.name}.part")
    descriptor = open_regular(part, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        needed = sum(file.size for file, _ in files) - os.fstat(descriptor).st_size
        check_space(part.parent, max(0, needed))
        growing = _GrowingArchive(descriptor, count)
        for name, data in head:
            growing.add(name, data)
        for file, blob in files:
            growing.add_file(file, blob)
        growing.end()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)


class _GrowingArchive:
    """Members one after another; those that are there already, and right, are kept."""

    def __init__(self, descriptor: int, count: Count) -> None:
        self._descriptor = descriptor
        self._count = count
        self._at = 0
        self._keeps = True

    def add(self, name: str, data: bytes) -> None:
        """A member with `data`."""
        self._put(_header(name, len(data)) + _padded(data))

    def add_file(self, file: ManifestFile, blob: Path) -> None:
        """A member with the content of `blob`, which must have the hash of `file`."""
        start = self._at
        self._put(_header(FILES + file.path, file.size))
        if self._keeps and self._digest(self._descriptor, self._at, file) == file.etag:
            self._at += file.size
            self._put(bytes(-file.size % _BLOCK))
            return
        self._cut()
        source = open_regular(blob)
        try:
            if self._digest(source, 0, file, copy=True) != file.etag:
                os.ftruncate(self._descriptor, start)
                raise IntegrityError(f"{file.path} is damaged in the cache", hint="'p2pmodel fetch' repairs it")
        finally:
            os.close(source)
        self._at += file.size
        self._put(bytes(-file.size % _BLOCK))

    def end(self) -> None:
        """The end of the archive."""
        self._put(_END)
        os.ftruncate(self._descriptor, self._at)

    def _put(self, data: bytes) -> None:
        if not (self._keeps and os.pread(self._descriptor, len(data), self._at) == data):
            self._cut()
            _write_all(self._descriptor, data, self._at)
        self._at += len(data)

    def _cut(self) -> None:
        if self._keeps:
            os.ftruncate(self._descriptor, self._at)
            self._keeps = False

    def _digest(self, source: int, offset: int, file: ManifestFile, *, copy: bool = False) -> str:
        """The hash of `file.size` bytes of `source` from `offset`; "" if there are fewer. `copy`: write them, too."""
        hasher, done = file.hasher(), 0
        while done < file.size:
            data = os.pread(source, min(_READ, file.size - done), offset + done)
            if not data:
                return ""
            if copy:
                _write_all(self._descriptor, data, self._at + done)
            hasher.update(data)
            done += len(data)
            self._count(len(data))
        return hasher.hexdigest()


def _bundle(archive: IO[bytes]) -> Bundle:
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        about = _head(tar, ABOUT)
        try:
            version = parse_json(about)["bundle"]
        except (ValueError, TypeError, LookupError):
            version = None
        if version != VERSION:
            raise IntegrityError("this archive is not a bundle, or of a later version", hint=_AGAIN)
        _head(tar, MANIFEST)
        torrent, signatures = _head(tar, TORRENT), _head(tar, SIGNATURES)
        return Bundle(torrent, signatures, _files(tar), archive.fileno())


def _head(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.next()
    if member is None or member.name != name or not member.isreg() or member.size > _MAX_HEAD:
        raise IntegrityError(f"this archive is not a bundle: {name} is not in its place", hint=_AGAIN)
    content = tar.extractfile(member)
    data = content.read() if content else b""
    if len(data) != member.size:
        raise IntegrityError(f"this bundle is cut off in {name}", hint=_AGAIN)
    return data


def _files(tar: tarfile.TarFile) -> dict[str, BundledFile]:
    """The files up to the end, or to where the archive is cut off."""
    found: dict[str, BundledFile] = {}
    while len(found) <= MAX_FILES:
        try:
            member = tar.next()
        except tarfile.TarError:
            return found
        if member is None:
            return found
        path = member.name.removeprefix(FILES)
        if not member.isreg() or path == member.name or path in found or member.sparse:
            raise IntegrityError(f"this bundle has an unknown member {printable(member.name)}", hint=_AGAIN)
        found[path] = BundledFile(member.size, member.offset_data)
    raise IntegrityError(f"this bundle has more than {MAX_FILES} files", hint=_AGAIN)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _BLOCK)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
