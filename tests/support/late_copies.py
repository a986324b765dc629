"""A device for the ring of buffers: its copies land late, in threads, and read the buffer only then, as a GPU does."""

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch

UNWRITTEN = 0xEE


class LateCopies:
    """Copies land up to `delay` seconds late, in any order. Tensors are taken too early, and buffers filled again too
    early, if the ring does not wait: then the bytes are wrong. `broken`: the copies raise this."""

    def __init__(self, delay: float = 0.003, broken: Exception | None = None) -> None:
        self._delay = delay
        self._broken = broken
        self._pool = ThreadPoolExecutor(3)
        self._dice = random.Random(1)
        self._lock = threading.Lock()
        self.buffers = 0
        self.allocated = 0

    def close(self) -> None:
        self._pool.shutdown()

    def buffer(self, size: int) -> torch.Tensor:
        self.buffers += 1
        return torch.empty(size, dtype=torch.uint8)

    def empty(self, size: int) -> torch.Tensor:
        with self._lock:
            self.allocated += size
        return torch.full((size,), UNWRITTEN, dtype=torch.uint8)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> "Future[None]":
        if self._broken is not None:
            raise self._broken
        with self._lock:
            delay = self._dice.random() * self._delay

        def land() -> None:
            time.sleep(delay)
            target.copy_(source)

        return self._pool.submit(land)

    def wait(self, ticket: "Future[None]") -> None:
        ticket.result()

    def done(self, ticket: "Future[None]") -> bool:
        return ticket.done()
