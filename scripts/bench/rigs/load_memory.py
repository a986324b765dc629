"""The memory of one load in a process of its own: python -m scripts.bench.rigs.load_memory cpu|ring CACHE REPO COMMIT.

Prints one line of JSON.
"""

import asyncio
import json
import mmap
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from p2pmodel.core.content.names import RepoId
from p2pmodel.loading import optional_imports
from p2pmodel.loading.arrival.arriving_model import ArrivingModel, is_kept
from p2pmodel.loading.arrival.overlap import ArrivingSnapshot, load_while_arriving
from p2pmodel.loading.arrival.tensor_order import TensorRange
from p2pmodel.loading.model import LoadedModel
from p2pmodel.loading.options import LoadOptions
from p2pmodel.loading.pinned_buffers import BUFFER_BYTES, BUFFERS, DeviceRing
from p2pmodel.store.cache import HubCache

_EVERY = 0.002


class AnonymousMemory:
    """The highest anonymous memory of this process above that at the start, in bytes, sampled in a thread.

    `every`: seconds between two samples.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._first = self._highest = anonymous()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """The bytes."""
        self._stop.set()
        self._thread.join()
        return max(self._highest, anonymous()) - self._first

    def _sample(self) -> None:
        while not self._stop.wait(self._every):
            self._highest = max(self._highest, anonymous())


def anonymous() -> int:
    """The resident anonymous memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


class SharedMemoryDevice:
    """A twin of a GPU in this host: its memory is shared memory, which is not anonymous; its buffers are resident, as
    pinned ones are."""

    def buffer(self, size: int) -> torch.Tensor:
        """A host buffer, all of it in memory."""
        return torch.ones(size, dtype=torch.uint8)

    def empty(self, size: int) -> torch.Tensor:
        """Memory of the device."""
        return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copied at once."""
        target.copy_(source)

    def wait(self, _ticket: None) -> None:
        """It is copied."""

    def done(self, _ticket: None) -> bool:
        """It is copied."""
        return True


def through_the_ring() -> None:
    """Let models go through a ring with the buffers of a GPU."""

    def ring(
        self: ArrivingModel,
        _place: str,
        config: Any,
        ordered: list[TensorRange],
        slices: dict[str, Any],
        stack: ExitStack,
    ) -> dict[str, DeviceRing]:
        kept = [each for each in ordered if each.size and is_kept(slices[each.name].get_dtype(), config)]
        found = stack.enter_context(DeviceRing(self.watch, kept, SharedMemoryDevice()))
        return {each.name: found for each in kept}

    ArrivingModel.rings = ring  # type: ignore[method-assign]


def kept_in_anonymous_memory(loaded: LoadedModel) -> int:
    """Bytes of parameters that are neither a mapped file nor memory of the twin."""
    maps = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _mode, _offset, _device, inode, *_name = line.split()
        start, _, end = span.partition("-")
        maps.append((int(start, 16), int(end, 16), int(inode)))
    own = 0
    for parameter in {each.data_ptr(): each for each in loaded.model.parameters()}.values():
        inode = next((inode for start, end, inode in maps if start <= parameter.data_ptr() < end), 0)
        own += 0 if inode else parameter.numel() * parameter.element_size()
    return own


def main() -> None:
    """Load once, and print the figures."""
    way, cache, name, commit = sys.argv[1:]
    optional_imports.require()
    import p2pmodel.loading.model  # noqa: F401, PLC0415 - before the memory at the start is taken

    if way == "ring":
        through_the_ring()
    repo = HubCache(Path(cache)).repo(RepoId(name))
    manifest = repo.manifest(commit)
    assert manifest is not None
    snapshot = ArrivingSnapshot(repo, manifest, manifest.files)
    memory = AnonymousMemory(_EVERY)
    loaded = asyncio.run(load_while_arriving(snapshot, asyncio.sleep(0), LoadOptions(device="cpu")))
    peak = memory.end()
    weights = kept_in_anonymous_memory(loaded)
    largest = max(each.numel() * each.element_size() for each in loaded.model.parameters())
    ring_bytes = BUFFERS * BUFFER_BYTES if way == "ring" else 0
    print(
        json.dumps(
            {
                "model": loaded.weight_bytes,
                "anonymous": peak,
                "weights": weights,
                "beside": peak - weights,
                "largest": largest,
                "ring": ring_bytes,
                "bound": 500_000_000 + ring_bytes + 2 * largest,
            }
        )
    )


if __name__ == "__main__":
    main()
