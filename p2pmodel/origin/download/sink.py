"""The port that downloaded bytes are written to; the store's resumable partial file implements it."""

from typing import Protocol


class RangeSink(Protocol):
    """One file assembled from ranges, in any order and possibly over several runs."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    def missing(self) -> list[tuple[int, int]]:
        """(offset, length) of the ranges not written yet; disjoint, ascending."""

    async def write(self, offset: int, data: bytes) -> None:
        """Store `data`. Raises LocalResource if the disk fails."""

    async def digest(self) -> str:
        """Hex etag of the complete file."""

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes written before."""

    async def forget(self, offset: int, length: int) -> None:
        """Make this range missing again."""

    async def discard(self) -> None:
        """Make the whole file missing again."""
