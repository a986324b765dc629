"""The hub's hash of a file that is still being written."""

import os
import threading
from pathlib import Path

from p2pmodel.core.layout import MIB
from p2pmodel.core.manifest import ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import sync
from p2pmodel.store.files.hashing import chunks
from p2pmodel.store.verify import sealed_digest

QUANTUM = 128 * MIB
"""Bytes hashed in one call, about 0.1 s: a thread cannot be cancelled, and the command's end would wait for it."""

SYNC_EVERY = 256 * MIB
"""Bytes after which the file is brought onto the disk. Without it all of that waits until the file is whole."""


class GrowingDigest:
    """Takes in the beginning of `path`, the content of `file`, as far as it is final; `sealed` ends it.

    Hashed while it is in the page cache, and while more is on its way. Blocks: call in threads; calls take turns.
    """

    def __init__(self, path: Path, file: ManifestFile) -> None:
        self._path = path
        self._file = file
        self._hasher = file.hasher()
        self._hashed = 0
        self._synced = 0
        self._turn = threading.Lock()

    @property
    def hashed(self) -> int:
        """Bytes taken in so far."""
        return self._hashed

    @translated()
    def advance(self, final: int) -> bool:
        """Take in some more of the first `final` bytes, which will not change any more, as far as they are written:
        what is not written yet is a hole. Returns whether there is more to take in."""
        with self._turn:
            written = min(final, _first_hole(self._path, self._hashed))
            if written <= self._hashed:
                return False
            end = min(written, self._hashed + QUANTUM)
            for data in chunks(self._path, self._hashed, end - self._hashed):
                self._hasher.update(data)
                self._hashed += len(data)
            if self._hashed - self._synced >= SYNC_EVERY:
                sync(self._path)
                self._synced = self._hashed
            return self._hashed < written

    @translated()
    def sealed(self) -> str:
        """The hash of the whole file, in hex, as a power cut would leave it. Unless `advance` has taken in all of it,
        it is read now, all of it.

        A file system without holes may have shown bytes that were written only later. So if the hash is not the
        right one, all is read again, too.
        """
        if self._hasher.hexdigest() != self._file.etag:
            return sealed_digest(self._path, self._file)
        sync(self._path)
        return self._file.etag


def _first_hole(path: Path, offset: int) -> int:
    """Where the first hole at or behind `offset` begins; `offset` if the file ends before it or is not there yet."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return offset
    try:
        return os.lseek(descriptor, offset, os.SEEK_HOLE)
    except OSError:  # ENXIO: the file ends before it
        return offset
    finally:
        os.close(descriptor)
