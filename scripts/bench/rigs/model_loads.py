"""One fetch and load in a process of its own: python -m scripts.bench.rigs.model_loads serial|overlapped [RATE].

Prints one line of JSON. RATE: bytes a second of an emulated device. Settings come from the environment.
"""

import asyncio
import json
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

import torch
import transformers

from p2pmodel.config.sources import load_settings
from p2pmodel.loading import optional_imports
from p2pmodel.loading.answers.chat import answer
from p2pmodel.loading.answers.processor import processor_for
from p2pmodel.loading.arrival.arriving_model import ArrivingModel
from p2pmodel.loading.arrival.fetch_load import fetch_and_load
from p2pmodel.loading.arrival.overlap import ArrivingSnapshot, load_while_arriving
from p2pmodel.loading.arrival.tensor_order import TensorRange
from p2pmodel.loading.model import LoadedModel
from p2pmodel.loading.options import LoadOptions
from p2pmodel.loading.pinned_buffers import DeviceRing
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.snapshot.target import parse_target
from scripts.bench.rigs.last_byte import LastByte
from scripts.bench.rigs.load_memory import AnonymousMemory

REPO = "bench/vision-model"
PROMPT = "What is in the picture?"
_EVERY = 0.02


class PacedDevice:
    """A device that takes `rate` bytes a second, one copy after the other, without using the processor meanwhile."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = time.monotonic()
        self._lock = threading.Lock()

    def buffer(self, size: int) -> torch.Tensor:
        """A host buffer."""
        return torch.empty(size, dtype=torch.uint8)

    def empty(self, size: int) -> torch.Tensor:
        """Memory of the device: of this host."""
        return torch.empty(size, dtype=torch.uint8)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> float:
        """The time at which the copy is done."""
        target.copy_(source)
        with self._lock:
            self._free = max(self._free, time.monotonic()) + source.numel() / self._rate
            return self._free

    def wait(self, ticket: float) -> None:
        """Wait for that time."""
        time.sleep(max(0.0, ticket - time.monotonic()))

    def done(self, ticket: float) -> bool:
        """Whether that time has come."""
        return time.monotonic() >= ticket


def emulate(rate: float) -> None:
    """Let models go through a ring of small buffers to a device of that rate."""
    device = PacedDevice(rate)

    def ring(
        self: ArrivingModel,
        _place: str,
        _config: Any,
        ordered: list[TensorRange],
        _slices: dict[str, Any],
        stack: ExitStack,
    ) -> dict[str, DeviceRing]:
        found = stack.enter_context(DeviceRing(self.watch, ordered, device, buffers=4, size=1 << 24))
        return {each.name: found for each in ordered}

    ArrivingModel.rings = ring  # type: ignore[method-assign]


class ModelLoad:
    """One measurement; times in seconds since its start."""

    def __init__(self, rate: float | None) -> None:
        self._emulated = rate is not None
        self._options = LoadOptions(device="cpu", dtype="auto" if self._emulated else "float32")
        self._results: list[FetchResult] = []
        self._fetch = Fetch(FetchRequest(parse_target(REPO)), load_settings(), LastByte(lambda: self._note("arrived")))
        self._memory = AnonymousMemory(_EVERY)
        self._began = time.monotonic()
        self._times: dict[str, float] = {}

    def serial(self) -> LoadedModel:
        """Download, then load."""
        asyncio.run(self._fetch.run(self._ready))
        if self._emulated:
            loaded = asyncio.run(self._loaded_complete())
        else:
            path = self._results[0].path
            model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
            loaded = LoadedModel(model.eval(), processor_for(path), "cpu", 0.0, 0)
        return loaded

    def overlapped(self) -> LoadedModel:
        """Load while the files arrive."""
        return asyncio.run(fetch_and_load(self._fetch, self._options, on_ready=self._ready))()

    def report(self, loaded: LoadedModel) -> dict[str, Any]:
        """All figures, after one generated token."""
        self._note("loaded")
        weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
        memory = self._memory.end() - weights
        largest = max(p.numel() * p.element_size() for p in loaded.model.parameters())
        answer(loaded, PROMPT, max_new_tokens=1)
        self._note("answered")
        return self._times | {"memory": memory, "weights": weights, "largest": largest}

    async def _loaded_complete(self) -> LoadedModel:
        result = self._results[0]
        snapshot = ArrivingSnapshot(self._fetch.repo(result.manifest), result.manifest, result.manifest.files)
        return await load_while_arriving(snapshot, asyncio.sleep(0), self._options)

    def _ready(self, result: FetchResult) -> None:
        self._results.append(result)
        self._note("fetched")
        self._times.setdefault("arrived", self._times["fetched"])

    def _note(self, what: str) -> None:
        self._times[what] = time.monotonic() - self._began


def main() -> None:
    """Run one measurement."""
    mode, *rates = sys.argv[1:]
    optional_imports.require()
    rate = float(rates[0]) if rates else None
    if rate is not None:
        emulate(rate)
    load = ModelLoad(rate)
    loaded = load.serial() if mode == "serial" else load.overlapped()
    print(json.dumps(load.report(loaded)))


if __name__ == "__main__":
    main()
