"""The hub's hash of a file that is still being written."""

import os
import threading
from pathlib import Path

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import sync
from p2pmodel.store.files.hashing import chunks
from p2pmodel.store.files.regular import open_regular
from p2pmodel.store.verify import sealed_digest

QUANTUM = 128 * MIB
"""Bytes hashed in one call, about 0.1 s: a thread cannot be cancelled, and the command's end would wait for it."""

SYNC_EVERY = 256 * MIB
"""Bytes between two syncs of the file. Without them the whole sync would wait until the file is complete."""


class GrowingDigest:
    """Hashes the beginning of `path`, the content of `file`, as far as it is final; `sealed` ends it.

    It is hashed while it is in the page cache, during the download. Blocks: call in threads; calls take turns.
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
        """Bytes hashed so far."""
        return self._hashed

    @translated()
    def advance(self, final: int) -> bool:
        """Hash some more of the first `final` bytes, which do not change any more, as far as they are written:
        unwritten bytes are a hole. Returns whether there are more bytes to hash."""
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
        """The hash of the whole file, in hex, as it would survive a power cut. Unless `advance` has hashed the whole
        file, all of it is read now.

        A file system without holes may have returned zeros for bytes that were written later. So the file is also
        read again if the hash is not the right one.
        """
        if self._hasher.hexdigest() != self._file.etag:
            return sealed_digest(self._path, self._file)
        sync(self._path)
        return self._file.etag


class VouchedDigest:
    """As GrowingDigest, for a file of which the pieces were checked against a tree that a trusted signer has bound to
    the hash of `file`: the content is made durable, and not read."""

    def __init__(self, path: Path, file: ManifestFile) -> None:
        self._path = path
        self._file = file
        self._synced = 0
        self._turn = threading.Lock()
        self.hashed = 0
        """Bytes that are final."""

    @translated()
    def advance(self, final: int) -> bool:
        """Sync the file from time to time. Returns False: nothing is left to do."""
        with self._turn:
            self.hashed = max(self.hashed, final)
            if self.hashed - self._synced >= SYNC_EVERY:
                sync(self._path)
                self._synced = self.hashed
            return False

    @translated()
    def sealed(self) -> str:
        """The hash that the file has by its signer, once it is durable."""
        sync(self._path)
        return self._file.etag


def _first_hole(path: Path, offset: int) -> int:
    """The start of the first hole at or after `offset`; `offset` if the file is shorter or does not exist yet."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return offset
    try:
        return os.lseek(descriptor, offset, os.SEEK_HOLE)
    except OSError:  # ENXIO: the file is shorter
        return offset
    finally:
        os.close(descriptor)
