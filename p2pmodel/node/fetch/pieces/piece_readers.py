"""What pieces are read from over HTTP, as the feed sees it."""

from collections.abc import Callable
from typing import Protocol

from p2pmodel.core.content.manifest import Manifest, ManifestFile


class PieceReader(Protocol):
    """A scarce source: mirrors (`Origin`) or seeders (`Seeders`)."""

    async def read(
        self,
        manifest: Manifest,
        file: ManifestFile,
        offset: int,
        length: int,
        *,
        accept: Callable[[bytes], bool] | None,
    ) -> bytes:
        """As `Origin.read`."""


class SeederReader(PieceReader, Protocol):
    """Seeders; asked before mirrors while they are `usable`."""

    @property
    def usable(self) -> bool:
        """Whether a request is likely to succeed."""

    @property
    def received(self) -> int:
        """Bytes from all seeders so far."""
