"""What one rank needs of a snapshot's weights, in bytes, in blocks of 16 KiB, and in pieces of a torrent. Pure.

A piece is the least that a swarm sends and verifies, a block the least that a seeder proves. Where the gaps between the
ranges of a tensor are short, or the ranges are many and short, the tensor comes whole, and the rank's part is cut out
of it on this machine.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from p2pmodel.core.content.layout import BLOCK, Layout
from p2pmodel.core.content.leaf_proof import Runs, runs_of, runs_size
from p2pmodel.core.content.shard_header import StoredTensor
from p2pmodel.core.content.tensor_cuts import Cut, TensorPart

FAR = 16 * BLOCK
"""Bytes of a gap that is worth a request of its own for a range of less than a block beyond it."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The rank needs the whole tensor, as other ranks do."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """The rank needs nothing of the tensor."""


Share = Cut | Whole | Nothing
Rule = Callable[[str, tuple[int, ...]], Share]
"""Returns the share of a rank in the tensor with this name and shape."""


@dataclass(frozen=True, slots=True)
class RankSizes:
    """Bytes: `own` of cut tensors, `shared` of those that the rank has whole, `in_blocks` in the blocks that have them,
    `in_pieces` in the pieces that do, of `total` in all weights. `by_rows` is what other ranks need of tensors that are
    cut in their rows and so come whole. `uncut`: names of tensors without equal parts: they are among the shared."""

    own: int
    shared: int
    in_blocks: int
    in_pieces: int
    total: int
    by_rows: int = 0
    uncut: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        """Bytes that the rank has in the end."""
        return self.own + self.shared


@dataclass(frozen=True, slots=True)
class NeededPieces:
    """The pieces that have some ranges: `whole` of which every block has bytes of them; of the others `blocks`, which
    do, counted from the begin of the piece."""

    whole: frozenset[int]
    blocks: Mapping[int, Runs]

    @property
    def every(self) -> frozenset[int]:
        """All of them."""
        return self.whole.union(self.blocks)


@dataclass(frozen=True, slots=True)
class RankPlan:
    """The parts of one rank by file, in the order of the files; `pieces` have all their bytes."""

    parts: Mapping[str, tuple[TensorPart, ...]]
    pieces: NeededPieces
    sizes: RankSizes


def needed_pieces(layout: Layout, ranges: Mapping[str, Iterable[tuple[int, int]]]) -> NeededPieces:
    """The pieces that have `ranges` of bytes (start, end), by path."""
    whole: set[int] = set()
    blocks: dict[int, Runs] = {}
    spans, width = {span.path: span for span in layout.spans}, layout.piece_length // BLOCK
    for path, found in ranges.items():
        span = spans[path]
        count = -(-span.size // BLOCK)
        of: dict[int, list[tuple[int, int]]] = {}
        for first, end in runs_of((start // BLOCK, -(-end // BLOCK)) for start, end in found if start < end):
            for number in range(first // width, -(-end // width)):
                here = max(first, number * width), min(end, (number + 1) * width)
                of.setdefault(number, []).append((here[0] - number * width, here[1] - number * width))
        for number, runs in of.items():
            if runs == [(0, min(width, count - number * width))]:
                whole.add(span.first_piece + number)
            else:
                blocks[span.first_piece + number] = tuple(runs)
    return NeededPieces(frozenset(whole), blocks)


def rank_plan(headers: Mapping[str, Sequence[StoredTensor]], rule: Rule, layout: Layout) -> RankPlan:
    """The plan of a rank, by the tensors of each weight file."""
    parts: dict[str, tuple[TensorPart, ...]] = {}
    ranges: dict[str, list[tuple[int, int]]] = {}
    uncut: list[str] = []
    for path in sorted(headers):
        found = [part for tensor in headers[path] if (part := _part(tensor, rule, uncut)) is not None]
        if found:
            parts[path] = tuple(found)
            # The header, too: with it the parts are found again.
            ranges[path] = [(0, min(tensor.start for tensor in headers[path]))]
            ranges[path] += [each for part in found for each in _fetched_ranges(part)]
    every, pieces = [part for found in parts.values() for part in found], needed_pieces(layout, ranges)
    length_of = {piece: layout.piece_range(piece).length for piece in pieces.every}
    sizes = RankSizes(
        own=sum(part.size for part in every if part.cut is not None),
        shared=sum(part.size for part in every if part.cut is None),
        in_blocks=sum(length_of[piece] for piece in pieces.whole)
        + sum(runs_size(runs, length_of[piece]) for piece, runs in pieces.blocks.items()),
        in_pieces=sum(length_of.values()),
        total=sum(tensor.end - tensor.start for tensors in headers.values() for tensor in tensors),
        by_rows=sum(part.reach[1] - part.reach[0] - part.size for part in every if _comes_whole(part)),
        uncut=tuple(uncut),
    )
    return RankPlan(parts, pieces, sizes)


def _part(tensor: StoredTensor, rule: Rule, uncut: list[str]) -> TensorPart | None:
    share = rule(tensor.name, tensor.shape)
    if isinstance(share, Nothing):
        return None
    if isinstance(share, Whole):
        return TensorPart(tensor)
    if not share.fits(tensor):
        uncut.append(tensor.name)
        return TensorPart(tensor)
    return TensorPart(tensor, share)


def _fetched_ranges(part: TensorPart) -> Iterator[tuple[int, int]]:
    """The ranges of which the blocks are fetched."""
    if not part.size:
        return
    if _comes_whole(part):
        yield part.reach
    else:
        yield from part.ranges()


def _comes_whole(part: TensorPart) -> bool:
    """Whether what lies between its ranges is fetched, too."""
    return 0 < part.gap < (BLOCK if part.run >= BLOCK else FAR)
