"""The tiny Qwen3-VL of the cases, the boundaries of its tensors, and the tensors that a right load has."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from p2pmodel.loading.formats import INDEX
from p2pmodel.loading.model import load
from p2pmodel.loading.options import LoadOptions
from scripts.demonstration.tiny_qwen3_vl import build
from tests.support.hub_snapshot import HubSnapshot, snapshot_of

REPO = "org/tiny"
CONVERTED = LoadOptions(device="cpu", dtype="float32")
"""Otherwise the tensors on a CPU are the mapped files, and would follow a repair of these."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """The byte `offset` of the weight file `shard`, behind the header or behind the tensor `after`."""

    shard: str
    offset: int
    after: str

    def __str__(self) -> str:
        return f"{self.shard}:{self.offset} (after {self.after})"


@dataclass(frozen=True, slots=True)
class TinyModel:
    """A snapshot, the boundaries of its tensors in the order of the files, and its tensors."""

    snapshot: HubSnapshot
    boundaries: Sequence[Boundary]
    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, folder: Path) -> "TinyModel":
        """The model in `folder`."""
        contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        found = [each for name in contents if name.endswith(".safetensors") for each in _boundaries(folder / name)]
        return cls(snapshot_of(contents, REPO), found, load(folder, options=CONVERTED).model.state_dict())

    def wrong(self, boundary: Boundary) -> HubSnapshot:
        """As a mirror that lies has it: the byte before the boundary and the one behind it are not the published ones.
        Names and hashes are."""
        data = bytearray(self.snapshot.contents[boundary.shard])
        for place in (boundary.offset - 1, boundary.offset):
            if place < len(data):
                data[place] ^= 0xFF
        contents = dict(self.snapshot.contents) | {boundary.shard: bytes(data)}
        return HubSnapshot(self.snapshot.repo, self.snapshot.commit, contents, self.snapshot.files)


def in_shards(folder: Path) -> Path:
    """Write the model into `folder` as real ones are: several tensors in each of five files."""
    return build(folder)


def one_by_one(source: Path, folder: Path) -> Path:
    """Write the model of `source` into `folder` with a file for each tensor, so that each is a piece of its torrent."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(source.iterdir()):
        if path.suffix == ".safetensors":
            tensors |= load_file(path)
        elif path.name != INDEX:
            (folder / path.name).write_bytes(path.read_bytes())
    places: dict[str, str] = {}
    for number, (name, tensor) in enumerate(sorted(tensors.items()), 1):
        shard = f"model-{number:05}-of-{len(tensors):05}.safetensors"
        save_file({name: tensor.contiguous()}, folder / shard, metadata={"format": "pt"})
        places[name] = shard
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def _boundaries(path: Path) -> list[Boundary]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = {name: place for name, place in json.loads(raw[8 : 8 + length]).items() if name != "__metadata__"}
    ends = sorted((place["data_offsets"][1], name) for name, place in header.items())
    data = 8 + length
    return [Boundary(path.name, data, "the header"), *(Boundary(path.name, data + end, name) for end, name in ends)]
