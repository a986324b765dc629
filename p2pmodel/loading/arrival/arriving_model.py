"""Builds the model of a snapshot that is still arriving: every tensor is handed over once its bytes are there."""

import json
import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from p2pmodel.core.content.shard_header import LENGTH, header_length
from p2pmodel.errors import IntegrityError
from p2pmodel.loading.arrival.arrival_watch import ArrivalWatch
from p2pmodel.loading.arrival.tensor_order import TensorRange
from p2pmodel.loading.failures import translated
from p2pmodel.loading.formats import check_loadable, missing_shards
from p2pmodel.loading.model import LoadedModel, assembled
from p2pmodel.loading.options import LoadOptions
from p2pmodel.loading.pinned_buffers import CopyDevice, CudaCopies, DeviceRing
from p2pmodel.loading.weights import TYPES, StateDict, shards_of
from p2pmodel.os_errors import translated as system_errors_translated

Ordering = Callable[[list[TensorRange]], list[TensorRange]]


@dataclass(frozen=True, slots=True)
class ArrivingModel:
    """The model to build: `settings` are paths in the repository, `here` all paths that are being fetched, `listed` all
    paths of the repository; `snapshot` is where its folder will be.

    `ordering` sorts the tensors as they arrive; it is called once the headers of all shards are there.
    """

    watch: ArrivalWatch
    snapshot: Path
    settings: Sequence[str]
    here: Collection[str]
    listed: Collection[str]
    options: LoadOptions
    ordering: Ordering

    @system_errors_translated()
    def build(self) -> LoadedModel:
        """The model, with all its tensors, before the files are verified. Blocks. Raises as `model.load`, and what
        `watch` fails with; LocalResource if the temporary folder cannot be used."""
        check_loadable(str(self.snapshot), self.here, self.listed, allow_pickle=self.options.allow_pickle)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pmodel-")))
            self._copy_settings(folder)
            return assembled(
                folder,
                self.snapshot,
                lambda place, config: self._tensors(folder, place, config, stack),
                self.options,
                in_this_order=True,
            )

    def _copy_settings(self, folder: Path) -> None:
        for path in self.settings:
            self.watch.wait_verified(path)
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            arriving = self.watch.file(path)
            target.write_bytes(os.pread(arriving.descriptor, arriving.file.size, 0) if arriving.file.size else b"")

    def _tensors(self, folder: Path, place: str, config: Any, stack: ExitStack) -> StateDict:
        with translated(f"reading the index of {self.snapshot}"):
            shards = shards_of(folder)
        missing_shards(str(self.snapshot), shards, self.here, self.listed)
        places, slices = [], {}
        for shard in shards:
            for found, tensor in self._opened(shard, stack):
                if found.name in slices:
                    raise IntegrityError(f"the tensor {found.name} is in two weight files of {self.snapshot}")
                slices[found.name] = tensor
                places.append(found)
        ordered = self.ordering(places)
        self.watch.expect(sum(each.size for each in ordered))
        ring = self.rings(place, config, ordered, slices, stack)
        return {each.name: ArrivingTensor(each, slices[each.name], self.watch, ring.get(each.name)) for each in ordered}

    def rings(
        self, place: str, config: Any, ordered: list[TensorRange], slices: dict[str, Any], stack: ExitStack
    ) -> dict[str, DeviceRing]:
        """By name, the ring for tensors that one GPU keeps as they are; other tensors are copied by transformers."""
        if not place.startswith("cuda") or self.options.device_map is not None or self.options.dtype != "auto":
            return {}
        return self.ring_on(CudaCopies(place), config, ordered, slices, stack)

    def ring_on(
        self, device: CopyDevice, config: Any, ordered: list[TensorRange], slices: dict[str, Any], stack: ExitStack
    ) -> dict[str, DeviceRing]:
        """By name, the ring to `device`."""
        kept = [each for each in ordered if each.size and is_kept(slices[each.name].get_dtype(), config)]
        ring = stack.enter_context(DeviceRing(self.watch, kept, device))
        return {each.name: ring for each in kept}

    def _opened(self, shard: str, stack: ExitStack) -> list[tuple[TensorRange, Any]]:
        """The places and slices of the tensors of a shard, once its header is there."""
        arriving = self.watch.file(shard)
        length = header_length(self._first(shard), shard, arriving.file.size)
        self.watch.wait(shard, 0, LENGTH + length)
        self.watch.wait_for_length(shard)
        with translated(f"loading {shard}"):
            opened = stack.enter_context(safe_open(arriving.path, framework="pt"))
            spans = json.loads(os.pread(arriving.descriptor, length, LENGTH))
            data = LENGTH + length
            return [(_place(name, shard, data, spans[name]), opened.get_slice(name)) for name in opened.keys()]  # noqa: SIM118

    def _first(self, shard: str) -> bytes:
        """The first bytes of a shard, once they are there; nothing of one that is shorter: they would never come."""
        arriving = self.watch.file(shard)
        if arriving.file.size < LENGTH:
            return b""
        self.watch.wait(shard, 0, LENGTH)
        return os.pread(arriving.descriptor, LENGTH, 0)


class ArrivingTensor:
    """A tensor as transformers takes it: `[...]` returns it once its bytes have arrived."""

    def __init__(self, place: TensorRange, tensor: Any, watch: ArrivalWatch, ring: DeviceRing | None) -> None:
        self._place = place
        self._tensor = tensor
        self._watch = watch
        self._ring = ring

    def get_dtype(self) -> str:
        """The type, as safetensors names it."""
        return str(self._tensor.get_dtype())

    def get_shape(self) -> list[int]:
        """The shape."""
        return list(self._tensor.get_shape())

    def __getitem__(self, index: Any) -> torch.Tensor:
        place = self._place
        if self._ring is not None:
            found = self._ring.take(place.name).view(TYPES[self.get_dtype()]).view(self.get_shape())[index]
        else:
            self._watch.wait(place.shard, place.start, place.end)
            found = self._tensor[index]
        self._watch.taken(place.size)
        return found


def is_kept(stored: str, config: Any) -> bool:
    """Whether the model of `config` keeps tensors of the type `stored` (a safetensors name) as they are."""
    kind = TYPES.get(stored)
    if kind is None:
        return False
    wanted = getattr(config, "dtype", None)
    return kind == wanted or kind.itemsize == 1 or not kind.is_floating_point


def _place(name: str, shard: str, data: int, span: Any) -> TensorRange:
    start, end = span["data_offsets"]
    return TensorRange(name, shard, data + start, data + end)
