"""How much of a snapshot comes before everything else for a load that waits for it, and how that is requested."""

from dataclasses import dataclass

from p2pmodel.core.content.layout import MIB, piece_length_for

PIECES_FIRST = 8
SHARE_FIRST = 0.02
MOST_FIRST = 256 * MIB


@dataclass(frozen=True, slots=True)
class FileRange:
    """The bytes [start, end) of the file at `path` of a snapshot."""

    path: str
    start: int
    end: int


def window(total_size: int) -> int:
    """Missing bytes of a snapshot of `total_size` bytes that come first at a time: at least `PIECES_FIRST` pieces, or
    `SHARE_FIRST` of all bytes, but not more than `MOST_FIRST`. The rest stays rarest first, which is what a swarm
    needs."""
    return max(PIECES_FIRST * piece_length_for(total_size), min(int(SHARE_FIRST * total_size), MOST_FIRST))


def most_pieces(total_size: int) -> int:
    """The same in pieces."""
    return window(total_size) // piece_length_for(total_size)
