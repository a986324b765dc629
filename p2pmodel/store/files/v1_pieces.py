"""SHA-1 piece hashes (BEP 3) for torrents exported to clients without v2."""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from p2pmodel.core.content.layout import MIB
from p2pmodel.errors import IntegrityError
from p2pmodel.os_errors import translated
from p2pmodel.store.files.parallel import Count, ignore, in_parallel
from p2pmodel.store.files.regular import open_regular

_READ = MIB
_ZEROS = bytes(_READ)
_SHA1 = 20


@dataclass(frozen=True, slots=True)
class _Span:
    """`size` bytes of the torrent's byte stream: a whole file, or zeros of a pad file when `path` is None."""

    size: int
    path: Path | None


@translated()
def v1_pieces(
    files: Sequence[tuple[int, Path]], piece_length: int, *, pad: bool, on_bytes: Count = ignore, jobs: int = 1
) -> bytes:
    """Concatenated SHA-1 hashes of the pieces of `files` (size, path) laid end to end.

    With `pad`, as in a hybrid torrent (BEP 47, 52), zeros fill the last piece of every file that has
    another non-empty file after it. Otherwise pieces span files.
    """
    spans = list(_spans(files, piece_length if pad else 1))
    starts = [0, *accumulate(span.size for span in spans)]
    total = starts[-1]
    hashes = bytearray(-(-total // piece_length) * _SHA1)

    def work(number: int, count: Count) -> None:
        digest = hashlib.sha1(usedforsecurity=False)
        position, end = number * piece_length, min((number + 1) * piece_length, total)
        while position < end:
            index = bisect_right(starts, position) - 1
            offset = position - starts[index]
            size = min(spans[index].size - offset, end - position)
            for data in _read(spans[index], offset, size):
                digest.update(data)
            position += size
        hashes[number * _SHA1 : (number + 1) * _SHA1] = digest.digest()
        count(end - number * piece_length)

    in_parallel(range(-(-total // piece_length)), work, jobs, on_bytes)
    return bytes(hashes)


def _spans(files: Sequence[tuple[int, Path]], align: int) -> Iterator[_Span]:
    filled = [(size, path) for size, path in files if size]
    for number, (size, path) in enumerate(filled, start=1):
        yield _Span(size, path)
        gap = -size % align
        if gap and number < len(filled):
            yield _Span(gap, None)


def _read(span: _Span, offset: int, size: int) -> Iterator[bytes]:
    if span.path is None:
        for start in range(0, size, _READ):
            yield _ZEROS[: min(_READ, size - start)]
        return
    descriptor = open_regular(span.path)
    try:
        end = offset + size
        while offset < end:
            data = os.pread(descriptor, min(_READ, end - offset), offset)
            if not data:
                raise IntegrityError(f"{span.path} became shorter while it was read")
            yield data
            offset += len(data)
    finally:
        os.close(descriptor)
