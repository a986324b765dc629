"""Proofs that blocks of 16 KiB belong to a piece (BEP 52): their hashes, and those of the subtrees between them. Pure.

A proof lists hashes in the order of a walk from the root of the piece, the left half of each subtree first: of a wanted
block its own, of a subtree without wanted blocks that of the subtree, of one beyond the end of the file none. So its
length follows from the question, and the root of the piece is enough to check it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from p2pmodel.core.content.layout import BLOCK, PieceRange
from p2pmodel.core.content.merkle import HASH, power_of_two, reduce

MAX_WIDTH = 8192
"""Blocks of the largest piece: 128 MiB."""
MOST_RUNS = 64
"""Runs of blocks in one question."""

Runs = tuple[tuple[int, int], ...]
"""Blocks of a piece as (first, end), in order, with others between them."""

_RUNS = re.compile(r"[0-9]{1,4}-[0-9]{1,4}(?:,[0-9]{1,4}-[0-9]{1,4})*")


@dataclass(frozen=True, slots=True)
class PieceTree:
    """The tree over one piece: `width` leaves, a power of two, from block `first` of its file on. The file has `count`
    of these blocks."""

    first: int
    width: int
    count: int

    @classmethod
    def of(cls, place: PieceRange, piece_length: int) -> Self:
        """The tree of the piece at `place`. That of an only piece is as wide as its blocks need."""
        count = -(-place.length // BLOCK)
        only = place.span.piece_count == 1
        return cls(place.offset // BLOCK, power_of_two(count) if only else piece_length // BLOCK, count)

    @classmethod
    def at(cls, first: int, width: int, size: int) -> Self:
        """The tree from block `first` of a file of `size` bytes on. ValueError if a file has no such tree."""
        blocks = -(-size // BLOCK)
        if not 0 < width <= MAX_WIDTH or width & (width - 1) or first % width or not 0 <= first < blocks:
            raise ValueError("there is no such tree")
        return cls(first, width, min(width, blocks - first))


def runs_of(blocks: Iterable[tuple[int, int]]) -> Runs:
    """The (first, end) of `blocks`, in any order, joined where they touch or overlap."""
    runs: list[tuple[int, int]] = []
    for first, end in sorted(blocks):
        if runs and first <= runs[-1][1]:
            runs[-1] = runs[-1][0], max(runs[-1][1], end)
        elif first < end:
            runs.append((first, end))
    return tuple(runs)


def runs_size(runs: Runs, length: int) -> int:
    """Bytes of the blocks in `runs` of a piece of `length` bytes, of which the last block may be short."""
    return sum(min(length, end * BLOCK) - first * BLOCK for first, end in runs)


def asked(runs: Runs) -> Runs:
    """The runs to ask for: one around all of them, if there are too many for one question."""
    return runs if len(runs) <= MOST_RUNS else ((runs[0][0], runs[-1][1]),)


def runs_text(runs: Runs) -> str:
    """`runs` as `FIRST-LAST,FIRST-LAST`."""
    return ",".join(f"{first}-{end - 1}" for first, end in runs)


def parse_runs(text: str, count: int) -> Runs:
    """The runs in `text`, of the first `count` blocks. ValueError if it is anything else."""
    if not _RUNS.fullmatch(text):
        raise ValueError("no runs of blocks")
    runs = tuple((int(first), int(last) + 1) for first, last in (part.split("-") for part in text.split(",")))
    places = [0, *(place for run in runs for place in run), count]
    apart = all(left[1] < right[0] for left, right in pairwise(runs))
    if len(runs) > MOST_RUNS or not apart or places != sorted(places) or any(first == end for first, end in runs):
        raise ValueError("the runs of blocks are not in order, or outside")
    return runs


def proof(leaves: Sequence[bytes], tree: PieceTree, runs: Runs) -> bytes:
    """The proof for `runs` of the blocks with these hashes."""
    hashes: list[bytes] = []

    def subtree(start: int, width: int) -> bytes:
        found = reduce(leaves[start : start + width], width)
        hashes.append(found)
        return found

    _walk(tree, runs, subtree)
    return b"".join(hashes)


def proof_length(tree: PieceTree, runs: Runs) -> int:
    """Bytes of the proof for `runs`."""
    length = 0

    def subtree(_start: int, _width: int) -> bytes:
        nonlocal length
        length += HASH
        return b""

    _walk(tree, runs, subtree)
    return length


def proved(data: bytes, root: bytes, tree: PieceTree, runs: Runs) -> dict[int, bytes] | None:
    """By block of `runs`, its hash, if the proof `data` leads to the `root` of the piece; else None."""
    found: dict[int, bytes] = {}
    position = 0

    def subtree(start: int, width: int) -> bytes:
        nonlocal position
        got = data[position : position + HASH]
        position += HASH
        if width == 1:
            found[start] = got
        return got

    top = _walk(tree, runs, subtree)
    if position != len(data) or top != root:
        return None
    return {block: found[block] for first, end in runs for block in range(first, end)}


def _walk(tree: PieceTree, runs: Runs, subtree: Callable[[int, int], bytes]) -> bytes:
    """The root. `subtree` returns the hash of what lies from a block on, of a width."""
    wanted = [False] * tree.count
    for first, end in runs:
        wanted[first:end] = [True] * (end - first)

    def visit(start: int, width: int) -> bytes:
        if start >= tree.count:
            return reduce((), width)
        if width == 1 or not any(wanted[start : start + width]):
            return subtree(start, width)
        half = width // 2
        return hashlib.sha256(visit(start, half) + visit(start + half, half)).digest()

    return visit(0, tree.width)


def fits(data: bytes | bytearray | memoryview, leaves: Iterable[bytes | None]) -> bool:
    """Whether the blocks in `data`, of which the last may be short, have these hashes."""
    view, expected = memoryview(data), list(leaves)
    blocks = range(0, len(view), BLOCK)
    return len(blocks) == len(expected) and all(
        hashlib.sha256(view[start : start + BLOCK]).digest() == leaf
        for start, leaf in zip(blocks, expected, strict=True)
    )
