"""The record beside a staged file of the 16 KiB blocks in it that passed the check of their Merkle tree, although their
piece is not whole: the root of the tree, then the hash of each block, zeros for one that is not known.

A block on record counts once its bytes were compared with its hash: so no order of writes matters, and no power cut.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.core.content.leaf_proof import Runs, fits, runs_of
from p2pmodel.core.content.merkle import HASH
from p2pmodel.os_errors import naming, translated
from p2pmodel.store.files.folder import open_regular

LEAVES = ".leaves"
_UNKNOWN = bytes(HASH)


def leaves_path(path: Path) -> Path:
    """Where the record of the staged file `path` is."""
    return path.with_name(f"{path.name}{LEAVES}")


class LeafRecord:
    """The record of the staged file `path`, of which the tree has this `root`. Methods block; threads may share it.

    Only the owner of the staged file writes.
    """

    def __init__(self, path: Path, root: bytes) -> None:
        self.path = path
        self._root = root
        self._writing = threading.Lock()

    @translated()
    def known(self, first: int, count: int) -> list[bytes | None]:
        """The hashes of `count` blocks from `first` on, None for those that are not on record."""
        found = b""
        with suppress(FileNotFoundError), self._opened(os.O_RDONLY) as descriptor:
            if os.pread(descriptor, HASH, 0) == self._root:
                found = os.pread(descriptor, HASH * count, HASH * (1 + first))
        hashes = [found[start : start + HASH] for start in range(0, HASH * count, HASH)]
        return [each if len(each) == HASH and each != _UNKNOWN else None for each in hashes]

    @translated()
    def lacking(self, first: int, size: int, runs: Runs) -> Runs:
        """The `runs`, counted from block `first` of the file of `size` bytes on, that are not in the staged file,
        or not right there."""
        try:
            descriptor = open_regular(self.path)
        except FileNotFoundError:
            return runs
        lacking: list[tuple[int, int]] = []
        try:
            for start, end in runs:
                known = self.known(first + start, end - start)
                for number, leaf in enumerate(known, start):
                    offset = (first + number) * BLOCK
                    here = leaf and fits(os.pread(descriptor, min(BLOCK, size - offset), offset), [leaf])
                    if not here:
                        lacking.append((number, number + 1))
        finally:
            os.close(descriptor)
        return runs_of(lacking)

    @translated()
    def partial(self, pieces: int, width: int, blocks: int) -> frozenset[int]:
        """Pieces of `width` blocks, counted from the begin of the file of so many `blocks`, of which some blocks are on
        record, and not all."""
        found: set[int] = set()
        for piece in range(pieces) if leaves_path(self.path).exists() else ():
            known = self.known(piece * width, min(width, blocks - piece * width))
            if any(known) and None in known:
                found.add(piece)
        return frozenset(found)

    @translated()
    def write(self, offset: int, data: bytes, leaves: Mapping[int, bytes]) -> None:
        """Write `data`, whole blocks with these hashes, to the staged file at `offset`, and record them. The keys of
        `leaves` are the blocks of the file."""
        descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT)
        try:
            with naming(self.path):
                _write(descriptor, data, offset)
        finally:
            os.close(descriptor)
        with self._writing, self._opened(os.O_RDWR | os.O_CREAT) as record, naming(leaves_path(self.path)):
            if os.pread(record, HASH, 0) != self._root:
                os.ftruncate(record, 0)
                _write(record, self._root, 0)
            for block, leaf in leaves.items():
                _write(record, leaf, HASH * (1 + block))

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        descriptor = open_regular(leaves_path(self.path), flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)
