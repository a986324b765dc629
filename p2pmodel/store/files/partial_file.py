"""A file that is written in ranges, in any order, and survives kill -9.

Invariants, to re-check when editing:
1. A range is recorded only after it was written, and as synced only after it reached the disk.
2. A byte is written once: complete ranges, and those that another call is writing, are skipped. So the hashed bytes
   are those on disk.
3. Locks are taken in the order hashing, recording, state; the event loop waits for none.
4. The file has its final length from the start, and never a smaller one: readers may have mapped it.
5. Presumed ranges are never recorded: a later run would take them for bytes that a mirror sent.
"""

import asyncio
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.merkle import FileTree
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import naming, translated
from p2pmodel.store.files.disk import write_all
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.hashing import StreamingHasher
from p2pmodel.store.files.range_set import RangeSet, read_record, record_path, write_record

RECORD_EVERY = 8 * MIB
RECORD_SECONDS = 0.25
"""Loss by a kill -9, in bytes or in seconds of a slow link, whichever is less."""

SYNC_EVERY = 256 * MIB
"""Loss by a power cut, in bytes."""

_READ = MIB


class PartialFile:
    """The content of `file` while it is downloaded into `path`; satisfies origin's RangeSink.

    Each write also hashes some of the contiguous prefix, while it is in the page cache: after the last range almost
    everything is hashed. Close it when done (`async with`); the file and its record stay.
    """

    def __init__(self, path: Path, file: ManifestFile, piece_length: int, descriptor: int, done: RangeSet) -> None:
        """Use `open`."""
        self.path = path
        self._file = file
        self._piece_length = piece_length
        self._descriptor = descriptor
        self._done = done
        self._synced = done.copy()
        self._claimed = done.copy()
        self._presumed = RangeSet()
        self._hasher = StreamingHasher(file, piece_length)
        self._hashing = threading.Lock()
        self._recording = threading.Lock()
        self._state = threading.Condition()
        self._writing = 0
        self._unrecorded = 0
        self._recorded_at = time.monotonic()
        self._unsynced = 0
        self._closed = False

    @classmethod
    @translated()
    def open(cls, path: Path, file: ManifestFile, piece_length: int) -> Self:
        """Open `path`, with the ranges that an earlier run recorded. Blocks: call in a thread."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        present = os.fstat(descriptor).st_size
        done = read_record(path, file, present)
        if present < file.size:
            if not done:  # a record that is not believed of a shorter file must not be of a longer one
                record_path(path).unlink(missing_ok=True)
            with suppress(OSError):  # no space, where a file system has no sparse files: the writes will say so
                os.ftruncate(descriptor, file.size)
        return cls(path, file, piece_length, descriptor, done)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        closing = asyncio.ensure_future(asyncio.to_thread(self.close))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            # Also when all threads are busy: else the descriptor would stay open.
            await closing
            raise

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._file.size

    def missing(self) -> list[tuple[int, int]]:
        """(offset, length) of every range not yet written."""
        with self._state:
            return [(start, end - start) for start, end in self._done.gaps(0, self.size)]

    def available(self, offset: int) -> int:
        """The end of the bytes written from `offset` on without a gap."""
        with self._state:
            return next((start for start, _ in self._done.gaps(offset, self.size)), self.size)

    def note(self, offset: int, length: int) -> None:
        """Mark a range that other code has written and that can be read; it is recorded with the next write."""
        with self._state:
            self._check_open()
            self._done.add(offset, offset + length)
            self._claimed.add(offset, offset + length)
            self._unrecorded += length
            self._unsynced += length

    def presume(self, offset: int, length: int) -> None:
        """As `note`, for bytes that may prove wrong: of an older revision. They are not recorded."""
        with self._state:
            self._check_open()
            for ranges in (self._done, self._claimed, self._presumed):
                ranges.add(offset, offset + length)

    @property
    def presumed(self) -> int:
        """Bytes of presumed ranges that were not forgotten since."""
        with self._state:
            return len(self._presumed)

    async def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset`, except ranges that are complete. Raises NoSpace, LocalResource."""
        await asyncio.to_thread(self._write, offset, data)

    async def digest(self) -> str:
        """The hub's hash of the content, in hex. ValueError while something is missing."""
        return await asyncio.to_thread(self._finish)

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes written there."""
        return await asyncio.to_thread(self._read, offset, length)

    async def forget(self, offset: int, length: int) -> None:
        """Forget this range, which was written: its bytes are wrong, and missing again."""
        await asyncio.to_thread(self._forget, offset, offset + length)

    async def discard(self) -> None:
        """Forget everything: the bytes are wrong."""
        await asyncio.to_thread(self._discard)

    @property
    def tree(self) -> FileTree | None:
        """The Merkle tree of the content, after `digest`; None for an empty file."""
        return self._hasher.tree()

    @translated()
    def close(self) -> None:
        """Record the written ranges and close the file. Blocks until running writes have ended."""
        with self._hashing:
            with self._state:
                if self._closed:
                    return
                self._closed = True
                self._state.wait_for(lambda: not self._writing)
            try:
                if self._unrecorded:
                    self._record()
            finally:
                os.close(self._descriptor)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path} is closed")

    @translated()
    def _write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if not 0 <= offset <= end <= self.size:
            raise ValueError(f"range {offset} to {end} is outside {self._file.path} of {self.size} bytes")
        with self._state:
            self._check_open()
            wanted = self._claimed.gaps(offset, end)
            for start, stop in wanted:
                self._claimed.add(start, stop)
            self._writing += 1
        written = 0
        try:
            view = memoryview(data)
            with naming(self.path):
                for start, stop in wanted:
                    write_all(self._descriptor, view[start - offset : stop - offset], start)
                    written += 1
        finally:
            self._settle(wanted[:written], wanted[written:])
        self._record_if_due()
        self._hash_some(2 * len(data))

    def _settle(self, written: list[tuple[int, int]], failed: list[tuple[int, int]]) -> None:
        with self._state:
            for start, stop in written:
                self._done.add(start, stop)
                self._unrecorded += stop - start
                self._unsynced += stop - start
            for start, stop in failed:
                self._claimed.remove(start, stop)
            self._writing -= 1
            self._state.notify_all()

    def _record_if_due(self) -> None:
        with self._state:
            complete = len(self._done) == self.size
            late = time.monotonic() - self._recorded_at >= RECORD_SECONDS
            due = self._unrecorded >= RECORD_EVERY or (self._unrecorded and (complete or late))
        if due:
            self._record()

    def _record(self) -> None:
        # Under one lock, so that an older state never replaces a newer one, nor the one after a discard.
        with self._recording:
            with self._state:
                done = self._done.copy()
                for start, end in self._presumed:
                    done.remove(start, end)
                sync = self._unsynced >= SYNC_EVERY
                self._unrecorded = 0
                self._recorded_at = time.monotonic()
                if sync:
                    self._unsynced = 0
            if sync:
                os.fdatasync(self._descriptor)
                self._synced = done
            write_record(self.path, self._file, done, self._synced, durable=sync)

    def _hash_some(self, budget: int) -> None:
        """Hash up to `budget` more bytes, unless another write is hashing. Every write pays for twice its own length,
        so the hash keeps up with any order of writes, and no write takes long."""
        if self._hashing.acquire(blocking=False):
            try:
                self._advance(budget)
            finally:
                self._hashing.release()

    def _advance(self, budget: int) -> None:
        with self._state:
            ready = 0 if self._closed else self._done.prefix()
        end = min(ready, self._hasher.hashed + budget)
        while self._hasher.hashed < end:
            position = self._hasher.hashed
            data = os.pread(self._descriptor, min(_READ, end - position), position)
            if not data:
                raise LocalResource(
                    f"{self.path} became shorter while it was read", hint="no other program may change it"
                )
            self._hasher.update(data)

    @translated()
    def _finish(self) -> str:
        if self.missing():
            raise ValueError(f"{self._file.path} is not complete")
        with self._hashing:
            self._advance(self.size)
            return self._hasher.digest()

    @translated()
    def _read(self, offset: int, length: int) -> bytes:
        with self._state:
            self._check_open()
            return os.pread(self._descriptor, length, offset)

    @translated()
    def _forget(self, start: int, end: int) -> None:
        with self._hashing, self._recording, self._state:
            self._state.wait_for(lambda: not self._writing)
            self._check_open()
            # Removed before new bytes are written there: a kill -9 from here on costs progress, never correctness.
            record_path(self.path).unlink(missing_ok=True)
            for ranges in (self._done, self._synced, self._claimed, self._presumed):
                ranges.remove(start, end)
            if self._hasher.hashed > start:
                self._hasher = StreamingHasher(self._file, self._piece_length)
        self._record()

    @translated()
    def _discard(self) -> None:
        with self._hashing, self._recording, self._state:
            self._state.wait_for(lambda: not self._writing)
            self._check_open()
            record_path(self.path).unlink(missing_ok=True)
            self._done, self._synced, self._claimed, self._presumed = (RangeSet() for _ in range(4))
            self._unrecorded = self._unsynced = 0
            self._hasher = StreamingHasher(self._file, self._piece_length)


@translated()
def recorded(path: Path, file: ManifestFile) -> list[tuple[int, int]]:
    """(start, end) of the ranges of `file` that an earlier run wrote into `path` and that certainly exist."""
    try:
        return list(read_record(path, file, path.stat().st_size))
    except FileNotFoundError:
        return []
