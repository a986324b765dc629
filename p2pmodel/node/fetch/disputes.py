"""Files about which mirrors and torrent disagree: the mirrors' bytes fail the hashes of the pieces.

Either a mirror sends wrong bytes, or the torrent is forged. Peers may have pieces that fit, so a dispute is judged
only once no piece of the file comes from anywhere: one whole copy of the file, with the hub's hash, shows which.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

JUDGE_AFTER = 2.0
"""Seconds without a piece of the file, and without a request for one, after which its dispute is judged."""
JUDGE_AT_LAST = 15.0
"""The same while requests for its pieces are in flight."""


@dataclass
class DisputedFile(Exception):
    """Mirrors send other bytes for file `index` than the torrent has hashes of, and no piece of it comes."""

    index: int


@dataclass
class Disputes:
    """The disputes of one attempt. Pure: times in seconds are passed in. `judged` files are disputed no more."""

    judged: frozenset[int] = frozenset()
    _since: dict[int, float] = field(default_factory=dict)

    def arrived(self, index: int) -> None:
        """A piece of file `index` has come."""
        self._since.pop(index, None)

    def due(
        self, suspected: Collection[int], requested: Collection[int], now: float, *, at_once: bool = False
    ) -> int | None:
        """The file to judge now. `suspected`: incomplete files of which some mirror's bytes failed; `requested`: files
        of which pieces are requested. `at_once`: without waiting for pieces."""
        for index in suspected:
            idle, wait = now - self._since.setdefault(index, now), JUDGE_AT_LAST if index in requested else JUDGE_AFTER
            if index not in self.judged and (at_once or idle >= wait):
                return index
        return None
