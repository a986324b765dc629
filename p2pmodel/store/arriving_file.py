"""One file of a snapshot that is read while a download still writes it, in this process or in another one.

What has arrived follows from the disk alone: from the record beside the staged file, and from the verified blob.
Invariants, to re-check when editing:
1. Bytes count as arrived once the record says that they were written, or once the blob is verified. Until then they are
   not read.
2. Arrived bytes may still prove wrong: a mirror lied, or the torrent. `is_proved` is true only for the bytes of the
   opened file, once the hub's hash of all of it was right and nothing was overwritten since it was opened.
3. The opened file stays open, so that neither its new name nor a removal ends the reading.
"""

import os
from pathlib import Path
from typing import Self

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.os_errors import descriptor_path, translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.range_set import RangeSet, record_stamp


class ArrivingFile:
    """`file` in `repo`. Methods block; one thread calls `look`, others may read `arrived`. A context closes it."""

    def __init__(self, repo: RepoCache, file: ManifestFile) -> None:
        self.file = file
        self.arrived = RangeSet()
        """What may be read; it is replaced, never changed."""
        self._repo = repo
        self._descriptor: int | None = None
        self._mark = repo.corrupted_at(file)
        self._wrong = False
        self._blob: Path | None = None
        self._stamp: tuple[int, int, int] | None = None
        """The stamp of the record that `arrived` follows from."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def descriptor(self) -> int:
        """The opened file. ValueError before any of it has arrived."""
        if self._descriptor is None:
            raise ValueError(f"nothing of {self.file.path} has arrived")
        return self._descriptor

    @property
    def path(self) -> Path:
        """A path of the opened file for as long as it is open, whatever its name becomes."""
        return descriptor_path(self.descriptor)

    @property
    def is_full_length(self) -> bool:
        """Whether the opened file has its final length: it can be mapped whole."""
        return os.fstat(self.descriptor).st_size >= self.file.size

    @property
    def is_verified(self) -> bool:
        """Whether the whole file is in the cache, and its hash is right."""
        return self._blob is not None

    @property
    def is_wrong(self) -> bool:
        """Whether arrived bytes were wrong, or the opened file is not the one that got the blob's name."""
        return self._wrong

    @property
    def is_proved(self) -> bool:
        """Whether all bytes that were read of the opened file are those of the verified file."""
        return self.is_verified and not self._wrong

    @property
    def arrived_bytes(self) -> int:
        """Bytes that may be read."""
        return len(self.arrived)

    def has(self, start: int, end: int) -> bool:
        """Whether all of [start, end) may be read."""
        return not self.arrived.gaps(start, end)

    @translated()
    def look(self) -> bool:
        """Look at the disk once; whether anything changed."""
        if self.is_verified or self._wrong:
            return False
        before = len(self.arrived)
        if self._descriptor is None:
            self._mark = self._repo.corrupted_at(self.file)
        if not self._look_at_staged():
            self._look_at_blob()
        # Last: a file that was overwritten and verified during this look has the mark by now.
        if self._descriptor is not None and self._repo.corrupted_at(self.file) != self._mark:
            self._wrong = True
        return len(self.arrived) != before or self._wrong or self.is_verified

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _look_at_staged(self) -> bool:
        """Whether the file is staged, and its record says what of it was written."""
        path = self._repo.staged.readable_path(self.file)
        stamp = record_stamp(path)  # before the record is read: what is written meanwhile has another one
        if stamp is not None and stamp == self._stamp:
            return True
        ranges = self._repo.staged.recorded(path, self.file)
        if not ranges:  # not begun, published, or about to be overwritten: then the mark says so
            return False
        try:
            descriptor = open_regular(path)
        except OSError:
            return False
        if self._descriptor is None:
            self._descriptor = descriptor
        else:
            same = os.path.samestat(os.fstat(descriptor), os.fstat(self._descriptor))
            os.close(descriptor)
            self._wrong = not same or any(ranges.gaps(start, end) for start, end in self.arrived)
        if not self._wrong:
            self.arrived, self._stamp = ranges, stamp
        return True

    def _look_at_blob(self) -> None:
        if not self._repo.is_verified(self.file):
            return
        with self._repo.open_blob(self.file) as blob:
            if self._descriptor is None:
                self._descriptor = os.dup(blob.fileno())
            self._wrong = not os.path.samestat(os.fstat(blob.fileno()), os.fstat(self._descriptor))
        self._blob = self._repo.blob(self.file)
        if not self._wrong:
            self.arrived = RangeSet([(0, self.file.size)])
