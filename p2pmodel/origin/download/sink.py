"""Where pulled bytes go: the port that the store's resumable partial file satisfies."""

from typing import Protocol


class RangeSink(Protocol):
    """One file being put together from ranges, in any order and possibly over several runs."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    def missing(self) -> list[tuple[int, int]]:
        """(offset, length) of what has not been written yet; disjoint, ascending."""

    async def write(self, offset: int, data: bytes) -> None:
        """Keep `data`. Raises LocalResource when the disk does not take it."""

    async def digest(self) -> str:
        """Hex etag of what was written, once nothing is missing."""

    async def read(self, offset: int, length: int) -> bytes:
        """What was written there."""

    async def forget(self, offset: int, length: int) -> None:
        """Forget this range: it is missing again."""

    async def discard(self) -> None:
        """Forget everything: the bytes are wrong."""
