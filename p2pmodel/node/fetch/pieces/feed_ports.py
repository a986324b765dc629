"""The ports of a piece feed: the scarce sources that it pulls from, and the rule that chooses which pieces."""

import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from p2pmodel.core.content.manifest import Manifest, ManifestFile

NOWHERE = Path(os.devnull)
"""Where a file is that is not there."""


@dataclass(frozen=True, slots=True)
class FeedState:
    """A piece feed at one moment."""

    now: float
    """`time.monotonic()`."""
    missing: AbstractSet[int]
    """Missing pieces that the feed has not handed to the engine."""
    refused: AbstractSet[int]
    """Pieces of files that the mirrors recently failed to deliver."""
    availability: Sequence[int]
    """By piece, how many connected peers have it; may be empty while no peer is connected."""
    in_flight: frozenset[int]
    """Pieces that are being pulled."""
    from_seeders: bool
    """Whether pieces are pulled from seeders, not from mirrors."""
    mirrors_usable: bool
    """Whether mirrors exist and are not paused after a failure."""
    origin_bytes: int
    """Bytes that came from mirrors."""
    rate: int
    """Bytes/s pulled lately; 0 in the first half second."""
    pulled: int
    """Pieces pulled so far."""
    silent: bool
    """Whether nothing was delivered for a while (`DeliveryClock`): the pieces that peers claim to have may not come."""
    http_only: bool = False
    """Whether no peer connects to this node, as its private swarm has it: what others have cannot come from them."""
    handed_over: bool = False
    """Whether the engine downloads from the seeders itself, as web seeds."""

    @property
    def can_pull(self) -> bool:
        """Whether any scarce source may be asked now."""
        return self.from_seeders or self.mirrors_usable

    @property
    def orphans(self) -> set[int]:
        """Missing pieces that no connected peer has."""
        held = self.availability
        return {p for p in self.missing if not held or not held[p]}


class PieceStrategy(Protocol):
    """Chooses the pieces that a feed pulls."""

    @property
    def refills_at_once(self) -> bool:
        """Whether the feed chooses again as soon as a pull ends. Otherwise it polls, faster while pulls run."""

    async def prepare(self, now: float) -> None:
        """Refresh what `choose` depends on."""

    def choose(self, state: FeedState) -> list[int]:
        """Pieces to start pulling now, in order."""


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
