"""A RangeSink in memory that records its calls for tests."""

import hashlib

from p2pmodel.core.content.manifest import ManifestFile


class MemorySink:
    """Holds one file; `writes` are the (offset, length) in the order they came, `discards` counts `discard`."""

    def __init__(self, file: ManifestFile) -> None:
        self.file = file
        self.writes: list[tuple[int, int]] = []
        self.discards = 0
        self.forgotten: list[tuple[int, int]] = []
        self._data = bytearray(file.size)
        self._missing = [(0, file.size)] if file.size else []

    @property
    def size(self) -> int:
        return self.file.size

    @property
    def data(self) -> bytes:
        return bytes(self._data)

    def missing(self) -> list[tuple[int, int]]:
        return list(self._missing)

    async def write(self, offset: int, data: bytes) -> None:
        self.put(offset, data)

    def put(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        assert data, "an empty write"
        assert end <= self.size, "a write behind the end"
        self.writes.append((offset, len(data)))
        self._data[offset:end] = data
        left: list[tuple[int, int]] = []
        for start, length in self._missing:
            stop = start + length
            if start < min(stop, offset):
                left.append((start, min(stop, offset) - start))
            if max(start, end) < stop:
                left.append((max(start, end), stop - max(start, end)))
        self._missing = left

    async def digest(self) -> str:
        assert not self._missing, "digest of an unfinished file"
        hasher = self.file.hasher()
        hasher.update(self._data)
        return hasher.hexdigest()

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    async def forget(self, offset: int, length: int) -> None:
        self.forgotten.append((offset, length))
        self._data[offset : offset + length] = bytes(length)
        self._missing = sorted([*self._missing, (offset, length)])

    async def discard(self) -> None:
        self.discards += 1
        self._data = bytearray(self.size)
        self._missing = [(0, self.size)] if self.size else []


class NullSink(MemorySink):
    """Takes the bytes and forgets them at once; hands out the expected digest. For measuring speed."""

    def __init__(self, file: ManifestFile) -> None:
        self.file = file
        self.writes = []
        self.discards = 0
        self._left = file.size

    def missing(self) -> list[tuple[int, int]]:
        return [(0, self.size)] if self._left else []

    async def write(self, offset: int, data: bytes) -> None:
        self._left -= len(data)

    async def digest(self) -> str:
        return self.file.etag


def sha256(data: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(data).hexdigest()
