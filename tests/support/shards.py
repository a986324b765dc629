"""Safetensors files made of named bytes, and changes of them that publishers make."""

import json
import random
from collections.abc import Mapping


def shard(tensors: Mapping[str, bytes], metadata: Mapping[str, str] | None = None) -> bytes:
    """A file with these tensors of bytes, in this order."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def random_tensors(count: int, size: int, seed: int = 1) -> dict[str, bytes]:
    """`count` tensors of `size` random bytes each."""
    dice = random.Random(seed)
    return {f"layer.{number}.weight": dice.randbytes(size) for number in range(count)}
