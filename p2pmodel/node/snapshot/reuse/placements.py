"""Where the bytes of a new file may lie in older files: by tensors, from the front, or from the end. Pure.

A placement is a guess. The torrent's tree decides on each piece.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from p2pmodel.core.content.shard_header import StoredTensor

OldTensors = Mapping[str, tuple[str, StoredTensor]]
"""By name, the etag of the older file that has the tensor, and its place there."""


@dataclass(frozen=True, slots=True)
class OldRange:
    """`length` bytes of a new file from `offset`, perhaps those of an older file `source` (etag) at `start`."""

    offset: int
    length: int
    source: str
    start: int

    @property
    def end(self) -> int:
        """The end of the range in the new file."""
        return self.offset + self.length

    def part(self, offset: int, end: int) -> "OldRange":
        """The part of the range between `offset` and `end` of the new file."""
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


def matching(new: Iterable[StoredTensor], old: OldTensors) -> list[OldRange]:
    """A range for each of the `new` tensors that has the name, type and shape of an `old` one."""
    found = []
    for tensor in new:
        source, place = old.get(tensor.name, ("", tensor))
        length = tensor.end - tensor.start
        if source and length and (place.dtype, place.shape) == (tensor.dtype, tensor.shape):
            found.append(OldRange(tensor.start, length, source, place.start))
    return found


def joined(ranges: Iterable[OldRange]) -> list[OldRange]:
    """`ranges`, in order; neighbours that are neighbours in the older file, too, become one."""
    segments: list[OldRange] = []
    for each in ranges:
        last = segments[-1] if segments else None
        if last and (last.source, last.end, last.start + last.length) == (each.source, each.offset, each.start):
            segments[-1] = OldRange(last.offset, last.length + each.length, last.source, last.start)
        else:
            segments.append(each)
    return segments


def by_tensors(new: Iterable[StoredTensor], old: OldTensors) -> Placement:
    """The `new` tensors that have the name, type and shape of `old` ones."""
    return Placement(joined(matching(new, old)))


def known_parts(
    tensors: Sequence[OldRange], offset: int, end: int, trusted: Callable[[OldRange], bool]
) -> list[OldRange]:
    """What the `trusted` ones of `tensors` have of the bytes between `offset` and `end` of the new file. `tensors`: in
    order, a range for each tensor."""
    first = max(0, bisect_right(tensors, offset, key=lambda each: each.offset) - 1)
    found = []
    for each in tensors[first:]:
        if each.offset >= end:
            break
        if each.end > offset and trusted(each):
            found.append(each.part(offset, end))
    return joined(found)


def gaps(parts: Iterable[OldRange], offset: int, end: int) -> list[tuple[int, int]]:
    """(start, end) of the bytes between `offset` and `end` that are in none of `parts`, which are in order."""
    found = []
    for part in parts:
        if offset < part.offset:
            found.append((offset, part.offset))
        offset = max(offset, part.end)
    return [*found, (offset, end)] if offset < end else found


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
