"""What one rank needs of a snapshot's weights, in bytes and in pieces of a torrent. Pure.

A piece is the least that a swarm sends and verifies. Ranges with gaps below the length of a piece touch every piece
between them, so such a tensor comes whole, and the rank's part is cut out of it on this machine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from p2pmodel.core.content.layout import FileSpan, Layout
from p2pmodel.core.content.shard_header import StoredTensor
from p2pmodel.core.content.tensor_cuts import Cut, TensorPart


@dataclass(frozen=True, slots=True)
class Whole:
    """The rank needs the whole tensor, as other ranks do."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """The rank needs nothing of the tensor."""


Share = Cut | Whole | Nothing
Rule = Callable[[str, tuple[int, ...]], Share]
"""What a rank needs of the tensor with a name and a shape."""


@dataclass(frozen=True, slots=True)
class RankSizes:
    """Bytes: `own` of cut tensors, `shared` of those that the rank has whole, `fetched` in the pieces that have them,
    of `total` in all weights. `uncut`: names of tensors without equal parts: they are among the shared."""

    own: int
    shared: int
    fetched: int
    total: int
    uncut: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        """Bytes that the rank has in the end."""
        return self.own + self.shared


@dataclass(frozen=True, slots=True)
class RankPlan:
    """The parts of one rank by file, in the order of the files; `pieces` have all their bytes."""

    parts: Mapping[str, tuple[TensorPart, ...]]
    pieces: frozenset[int]
    sizes: RankSizes


def rank_plan(headers: Mapping[str, Sequence[StoredTensor]], rule: Rule, layout: Layout) -> RankPlan:
    """The plan of a rank, by the tensors of each weight file."""
    spans = {span.path: span for span in layout.spans}
    parts: dict[str, tuple[TensorPart, ...]] = {}
    pieces: set[int] = set()
    uncut: list[str] = []
    for path in sorted(headers):
        found = [part for tensor in headers[path] if (part := _part(tensor, rule, uncut)) is not None]
        if found:
            parts[path] = tuple(found)
            for part in found:
                for start, end in _fetched_ranges(part, layout.piece_length):
                    pieces.update(layout.pieces_in(spans[path], start, end - start))
            pieces.update(_header(spans[path], headers[path], layout))
    every = [part for found in parts.values() for part in found]
    sizes = RankSizes(
        own=sum(part.size for part in every if part.cut is not None),
        shared=sum(part.size for part in every if part.cut is None),
        fetched=sum(layout.piece_range(piece).length for piece in pieces),
        total=sum(tensor.end - tensor.start for tensors in headers.values() for tensor in tensors),
        uncut=tuple(uncut),
    )
    return RankPlan(parts, frozenset(pieces), sizes)


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


def _fetched_ranges(part: TensorPart, piece_length: int) -> Iterator[tuple[int, int]]:
    """The ranges of which the pieces are fetched."""
    if not part.size:
        return
    if part.gap and part.gap < piece_length:
        yield part.reach
    else:
        yield from part.ranges()


def _header(span: FileSpan, tensors: Sequence[StoredTensor], layout: Layout) -> range:
    """The pieces of the header: with them the parts are found again."""
    return layout.pieces_in(span, 0, min((tensor.start for tensor in tensors), default=span.size))
