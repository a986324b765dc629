"""Where the bytes of a new file may lie in older files: by tensors, from the front, or from the end. Pure.

A placement is a guess. The torrent's tree decides on each piece.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from p2pmodel.core.content.shard_header import StoredTensor


@dataclass(frozen=True, slots=True)
class OldRange:
    """`length` bytes of a new file from `offset`, perhaps those of an older file `source` (etag) at `start`."""

    offset: int
    length: int
    source: str
    start: int

    @property
    def end(self) -> int:
        """Where it ends in the new file."""
        return self.offset + self.length

    def part(self, offset: int, end: int) -> "OldRange":
        """What lies between `offset` and `end` of the new file."""
        first, last = max(offset, self.offset), min(end, self.end)
        return OldRange(first, last - first, self.source, self.start + first - self.offset)


class Placement:
    """Segments of one new file, in order, which do not overlap."""

    def __init__(self, segments: Iterable[OldRange]) -> None:
        self.segments = tuple(segments)
        self._offsets = [segment.offset for segment in self.segments]

    def __bool__(self) -> bool:
        return bool(self.segments)

    def cover(self, offset: int, end: int) -> list[OldRange]:
        """The segments that together are all bytes between `offset` and `end` of the new file; none if one lacks."""
        found: list[OldRange] = []
        for segment in self.segments[max(0, bisect_right(self._offsets, offset) - 1) :]:
            if offset >= end or segment.offset > offset:
                break
            if segment.end > offset:
                found.append(segment.part(offset, end))
                offset = found[-1].end
        return found if offset >= end else []


def by_tensors(new: Iterable[StoredTensor], old: Mapping[str, tuple[str, StoredTensor]]) -> Placement:
    """The `new` tensors that have the name, type and shape of `old` ones. `old`: by name, the etag of the file that has
    the tensor, and its place there. Neighbours that stay neighbours become one segment."""
    segments: list[OldRange] = []
    for tensor in new:
        source, place = old.get(tensor.name, ("", tensor))
        length = tensor.end - tensor.start
        if not source or not length or (place.dtype, place.shape) != (tensor.dtype, tensor.shape):
            continue
        last = segments[-1] if segments else None
        if last and (last.source, last.end, last.start + last.length) == (source, tensor.start, place.start):
            segments[-1] = OldRange(last.offset, last.length + length, source, last.start)
        else:
            segments.append(OldRange(tensor.start, length, source, place.start))
    return Placement(segments)


def by_ends(size: int, source: str, old_size: int) -> Sequence[Placement]:
    """The content of an older file at the beginning of a new one of `size` bytes, and at its end: a longer header moves
    all that follows it."""
    length = min(size, old_size)
    if not length:
        return ()
    front = Placement([OldRange(0, length, source, 0)])
    if size == old_size:
        return (front,)
    return front, Placement([OldRange(size - length, length, source, old_size - length)])
