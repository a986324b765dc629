"""The header of a safetensors file: where each tensor lies; and the index of several files. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from p2pmodel.core.content.names import printable
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import IntegrityError

LENGTH = 8
"""Bytes of the number at the start: the length of the JSON that follows."""
MAX_HEADER = 100_000_000
"""Bytes of the longest header that the format allows."""
BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
}
"""Bytes of one element, by the format's name of the type."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: `start` and `end` are offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """Tensors of one file that lie together, from `start` to `end`, and are read at once."""

    path: str
    start: int
    end: int
    tensors: tuple[StoredTensor, ...]


def indexed_files(index: bytes, path: str) -> list[str]:
    """The files that the index of a model names, each once, sorted. Raises IntegrityError unless they are safetensors
    files. `path`: of the index."""
    try:
        names = sorted({str(name) for name in parse_json(index)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path, "it is not an index") from None
    if not names:
        raise _damaged(path, "it names no weight file")
    if others := [name for name in names if not name.endswith(".safetensors")]:
        raise _damaged(path, f"it names {printable(others[0])}, which is not a safetensors file")
    return names


def header_length(first: bytes, path: str, size: int) -> int:
    """The length of the header from the `first` bytes of a file of `size` bytes. Raises IntegrityError."""
    length = int.from_bytes(first[:LENGTH], "little")
    if len(first) < LENGTH or not 2 <= length <= min(MAX_HEADER, size - LENGTH):
        raise _damaged(path, "its header has no valid length")
    return length


def tensor_places(header: bytes, path: str, size: int) -> list[StoredTensor]:
    """The tensors of a file of `size` bytes by their place. Raises IntegrityError for places that overlap, leave the
    file, or do not fit type and shape."""
    try:
        listed = parse_json(header)
    except ValueError:
        listed = None
    if not isinstance(listed, dict):
        raise _damaged(path, "its header is not a JSON object")
    base = LENGTH + len(header)
    found = [_place(name, each, base, path) for name, each in listed.items() if name != "__metadata__"]
    found.sort(key=lambda place: (place.start, place.end))
    end = base
    for place in found:
        if place.start != end:
            raise _damaged(path, f"{printable(place.name)} overlaps or leaves a gap")
        end = place.end
    if end != size:
        raise _damaged(path, f"its tensors end at {end} of {size} bytes")
    return found


def spans_of(path: str, tensors: Iterable[StoredTensor], most: int) -> list[TensorSpan]:
    """`tensors`, by their place, in spans of at most `most` bytes; a larger tensor is a span of its own."""
    groups: list[list[StoredTensor]] = []
    for place in tensors:
        if groups and place.end - groups[-1][0].start <= most:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [TensorSpan(path, group[0].start, group[-1].end, tuple(group)) for group in groups]


def _place(name: str, value: Any, base: int, path: str) -> StoredTensor:
    try:
        dtype, shape, (start, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        numbers = (*shape, start, end)
        fits = all(type(each) is int and each >= 0 for each in numbers)
        fits = fits and math.prod(shape) * BYTES[dtype] == end - start
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise _damaged(path, f"the type, shape and place of {printable(name)} do not fit")
    return StoredTensor(name, dtype, shape, base + start, base + end)


def _damaged(path: str, reason: str) -> IntegrityError:
    return IntegrityError(f"{printable(path)}: {reason}", hint="check the snapshot with 'p2pmodel verify'")
