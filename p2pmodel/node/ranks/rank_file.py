"""Write the part of a rank as one safetensors file: each tensor under its own name, with the shape of the rank's part.

The file gets its name once it is whole and on disk. Pieces of unfinished files, and blocks on record, are
checked again just before they are read: another process may have changed them.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.leaf_proof import PieceTree, runs_size
from p2pmodel.core.content.rank_plan import RankPlan
from p2pmodel.core.content.shard_header import BYTES
from p2pmodel.core.content.tensor_cuts import TensorPart
from p2pmodel.errors import IntegrityError
from p2pmodel.os_errors import translated
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.leaf_record import LeafRecord
from p2pmodel.store.files.parallel import Count, default_jobs, in_parallel
from p2pmodel.swarm.torrents import Metainfo

BLOCK = 8 * MIB
"""Bytes that are read at a time."""
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class PartSource:
    """Where the bytes of a weight file are. `staged`: unfinished, so that its pieces are checked."""

    path: Path
    staged: bool


@translated()
def write_rank_file(
    out: Path, plan: RankPlan, sources: Mapping[str, PartSource], metadata: Mapping[str, str], metainfo: Metainfo | None
) -> None:
    """Write the parts of `plan` to `out`. Blocks. Raises IntegrityError for a piece that is damaged on this disk, and
    for a tensor that two files have."""
    if metainfo is not None:
        _check_pieces(plan, sources, metainfo)
    places = [(path, part) for path, parts in plan.parts.items() for part in parts]
    # Larger elements first: each tensor is aligned to its elements, as readers expect.
    places.sort(key=lambda place: (-BYTES[place[1].tensor.dtype], place[1].tensor.name))
    header = _header([part for _, part in places], metadata)
    part_file = out.with_name(f".{out.name}.part")
    descriptors: dict[str, int] = {}
    try:
        with part_file.open("wb") as writer:
            writer.write(header)
            for path, part in places:
                if path not in descriptors:
                    descriptors[path] = open_regular(sources[path].path)
                _copy(part, descriptors[path], writer)
            writer.flush()
            os.fsync(writer.fileno())
        part_file.replace(out)
    finally:
        part_file.unlink(missing_ok=True)
        for descriptor in descriptors.values():
            os.close(descriptor)


def _header(parts: Iterable[TensorPart], metadata: Mapping[str, str]) -> bytes:
    listed: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for part in parts:
        tensor = part.tensor
        if tensor.name in listed:
            raise IntegrityError(f"two weight files have the tensor {tensor.name}", hint="load the whole snapshot")
        end = offset + part.size
        listed[tensor.name] = {"dtype": tensor.dtype, "shape": part.shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(listed, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _copy(part: TensorPart, descriptor: int, out: BinaryIO) -> None:
    stride = part.run + part.gap
    if not part.size:
        return
    if not part.gap or part.run >= BLOCK // 8:
        for start, end in part.ranges():
            out.writelines(_read(descriptor, offset, min(BLOCK, end - offset)) for offset in range(start, end, BLOCK))
        return
    start, end = part.reach
    together = max(1, BLOCK // stride) * stride
    for offset in range(start, end, together):
        block = memoryview(_read(descriptor, offset, min(together, end - offset)))
        out.write(b"".join(block[at : at + part.run] for at in range(0, len(block), stride)))


def _read(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            raise IntegrityError("a weight file is shorter than its header says", hint="run the same command again")
        data += more
    return data


def _check_pieces(plan: RankPlan, sources: Mapping[str, PartSource], metainfo: Metainfo) -> None:
    layout = metainfo.layout
    spans = {span.path: span for span in layout.spans}
    paths = [path for path in plan.parts if sources[path].staged]

    def check(path: str, count: Count) -> None:
        descriptor = open_regular(sources[path].path)
        record = LeafRecord(sources[path].path, metainfo.trees[path].root)
        try:
            for piece in sorted(plan.pieces.every.intersection(spans[path].pieces)):
                place = layout.piece_range(piece)
                tree, runs = PieceTree.of(place, layout.piece_length), plan.pieces.blocks.get(piece)
                if runs and not record.lacking(tree.first, place.span.size, runs):
                    count(runs_size(runs, place.length))
                    continue
                count(place.length)
                if not metainfo.accepts(piece, _read(descriptor, place.offset, place.length)):
                    raise IntegrityError(
                        f"an unfinished file of {path} was damaged on this disk",
                        hint=f"remove it with 'p2pmodel rm {metainfo.manifest.repo}@{metainfo.manifest.commit}'",
                    )
        finally:
            os.close(descriptor)

    in_parallel(paths, check, default_jobs())
