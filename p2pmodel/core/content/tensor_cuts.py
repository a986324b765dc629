"""A part of a tensor that one rank of a parallel engine has: its shape, and its bytes in the file. Pure.

Tensors are stored row by row. A cut along the first dimension is one range of bytes; one along a later dimension is a
range in each row, and a packed tensor (gate and up projections in one) has such ranges in each of its halves.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from p2pmodel.core.content.shard_header import BYTES, StoredTensor


@dataclass(frozen=True, slots=True)
class Cut:
    """Part `index` of `of` equal parts along dimension `dim`; a tensor of `packed` tensors is cut in each of them."""

    dim: int
    of: int
    index: int
    packed: int = 1

    def fits(self, tensor: StoredTensor) -> bool:
        """Whether the tensor has such equal parts."""
        return self.dim < len(tensor.shape) and tensor.shape[self.dim] % (self.of * self.packed) == 0


@dataclass(frozen=True, slots=True)
class TensorPart:
    """A tensor, of which a rank has a part; without `cut` the whole."""

    tensor: StoredTensor
    cut: Cut | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the part."""
        shape = list(self.tensor.shape)
        if self.cut is not None:
            shape[self.cut.dim] //= self.cut.of
        return tuple(shape)

    @property
    def size(self) -> int:
        """Bytes of the part."""
        return math.prod(self.shape) * BYTES[self.tensor.dtype]

    @property
    def run(self) -> int:
        """Bytes of each range."""
        if self.cut is None:
            return self.size
        return self.size // max(1, self._outer * self.cut.packed)

    @property
    def gap(self) -> int:
        """Bytes between two ranges; 0 for a single one."""
        if self.cut is None or (self._outer == 1 and self.cut.packed == 1):
            return 0
        return self.run * (self.cut.of - 1)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The begin and end of its bytes in the file, in the order of the part."""
        cut, start = self.cut, self.tensor.start
        if cut is None:
            yield start, self.tensor.end
            return
        run = self.run
        for block in range(self._outer * cut.packed):
            begin = start + (block * cut.of + cut.index) * run
            yield begin, begin + run

    @property
    def reach(self) -> tuple[int, int]:
        """From the begin of its first range to the end of its last one."""
        if self.cut is None:
            return self.tensor.start, self.tensor.end
        before, after = self.cut.index, self.cut.of - 1 - self.cut.index
        return self.tensor.start + before * self.run, self.tensor.end - after * self.run

    @property
    def _outer(self) -> int:
        assert self.cut is not None
        return math.prod(self.tensor.shape[: self.cut.dim])
