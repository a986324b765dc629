"""Copies tensors to a GPU in the order in which their bytes arrive, through a ring of pinned buffers.

transformers takes the tensors in its own order and copies each one while it waits. Here every part that has arrived is
on its way before its turn: read from the page cache into a pinned buffer, and copied on a stream of its own. A part has
the size of a buffer: the largest tensors, which arrive last as often as others, are mostly copied when they are whole.

Invariants, to re-check when editing:
1. A buffer is filled again only after the copy out of it is done.
2. A tensor is handed over only after all copies into it are done.
3. Nothing is copied before the first tensor is taken: before that, transformers allocates the memory of the whole model
   once, to warm up the allocator, and frees it.
4. Only tensors that the model keeps as they are go through the ring, so the device never holds two copies of them.
"""

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import torch

from p2pmodel.core.content.layout import MIB
from p2pmodel.errors import IntegrityError
from p2pmodel.loading.arrival.arrival_watch import ArrivalWatch
from p2pmodel.loading.arrival.tensor_order import TensorRange

BUFFERS = 3
BUFFER_BYTES = 128 * MIB
"""A power of two: the allocator of pinned memory rounds up to one."""
READERS = 2
_LOOK = 0.5
"""Seconds after which a wait for a tensor looks for a failure of the arrivals."""


class CopyDevice(Protocol):
    """A device that copies by itself. All calls may come from any thread."""

    def buffer(self, size: int) -> torch.Tensor:
        """A host buffer of `size` bytes."""

    def empty(self, size: int) -> torch.Tensor:
        """`size` bytes on the device."""

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> Any:
        """Begin to copy `source`, a part of a buffer, into `target`, a part of the device's memory; its ticket."""

    def wait(self, ticket: Any) -> None:
        """Return once that copy is done."""

    def done(self, ticket: Any) -> bool:
        """Whether that copy is done."""


class CudaCopies:
    """Copies on a stream of their own, which is ordered with the stream that uses the tensors by events."""

    def __init__(self, place: str) -> None:
        self._device = torch.device(place)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def buffer(self, size: int) -> torch.Tensor:
        """Pinned memory: only from there is a copy asynchronous."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def empty(self, size: int) -> torch.Tensor:
        """Memory of the current stream, so that it comes out of the cache that transformers has warmed up."""
        memory = torch.empty(size, dtype=torch.uint8, device=self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # an earlier user of it may still be busy
        memory.record_stream(self._stream)
        return memory

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> Any:
        """An event behind the copy."""
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return event

    def wait(self, ticket: Any) -> None:
        """Both the stream that uses the tensor and this thread wait."""
        torch.cuda.current_stream(self._device).wait_event(ticket)
        ticket.synchronize()

    def done(self, ticket: Any) -> bool:
        """Whether the event has happened."""
        return bool(ticket.query())


@dataclass(slots=True)
class _TensorCopy:
    """A tensor on its way: `parts` are not under way yet."""

    place: TensorRange
    parts: int
    memory: torch.Tensor | None = None
    tickets: list[Any] = field(default_factory=list)


class DeviceRing:
    """The tensors at `places`, each a sequence of bytes on `device`. A context ends its threads."""

    def __init__(
        self,
        watch: ArrivalWatch,
        places: Sequence[TensorRange],
        device: CopyDevice,
        *,
        buffers: int = BUFFERS,
        size: int = BUFFER_BYTES,
    ) -> None:
        self._watch = watch
        self._places = list(places)
        self._device = device
        self._buffers = buffers
        self._size = size
        self._free: queue.Queue[tuple[torch.Tensor, Any]] = queue.Queue()
        self._work: queue.Queue[TensorRange | None] = queue.Queue(maxsize=READERS)
        self._copies = {place.name: _TensorCopy(place, -(-place.size // size)) for place in places}
        """The tensors that were not taken yet."""
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._watch.wake()
        for thread in self._threads:
            thread.join()

    def take(self, name: str) -> torch.Tensor:
        """The bytes of the tensor on the device, once they are there. Once for each tensor. Raises the failure of the
        arrivals, or of a copy."""
        with self._changed:
            if not self._threads:
                self._start()
            held = self._copies[name]
            while held.parts:
                if (failure := self._failure or self._watch.failure) is not None:
                    raise failure
                self._changed.wait(_LOOK)
            del self._copies[name]
        for ticket in held.tickets:
            self._device.wait(ticket)
        assert held.memory is not None, "only tensors with bytes go through the ring"
        return held.memory

    def _start(self) -> None:
        for _ in range(self._buffers):
            self._free.put((self._device.buffer(self._size), None))
        self._threads = [threading.Thread(target=self._guarded, args=(self._distribute,), name="arrived tensors")]
        self._threads += [
            threading.Thread(target=self._guarded, args=(self._read,), name="tensor copies") for _ in range(READERS)
        ]
        for thread in self._threads:
            thread.start()

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by `take`, in the thread that needs the tensor
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()
            self._stop.set()

    def _distribute(self) -> None:
        """Give the parts of the tensors to the readers as they arrive."""
        waiting = dict.fromkeys(part for place in self._places for part in _parts(place, self._size))
        try:
            while waiting and not self._stop.is_set():
                for part in self._watch.wait_for_any(waiting, self._stop):
                    del waiting[part]
                    self._put(part)
        finally:
            for _ in range(READERS):
                self._put(None)

    def _put(self, part: TensorRange | None) -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._work.put(part, timeout=_LOOK)
                return

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                part = self._work.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if part is None:
                return
            self._copy(part)

    def _copy(self, part: TensorRange) -> None:
        copy = self._copies[part.name]
        with self._changed:
            memory = copy.memory = self._device.empty(copy.place.size) if copy.memory is None else copy.memory
        buffer, busy = self._free.get()
        if busy is not None and not self._device.done(busy):
            self._device.wait(busy)  # invariant 1
        source, offset = buffer[: part.size], part.start - copy.place.start
        _fill(self._watch.file(part.shard).descriptor, source, part.start)
        ticket = self._device.copy(memory[offset : offset + part.size], source)
        self._free.put((buffer, ticket))
        with self._changed:
            copy.tickets.append(ticket)
            copy.parts -= 1
            if not copy.parts:
                self._changed.notify_all()


def _parts(place: TensorRange, size: int) -> Iterator[TensorRange]:
    for start in range(place.start, place.end, size):
        yield replace(place, start=start, end=min(start + size, place.end))


def _fill(descriptor: int, buffer: torch.Tensor, offset: int) -> None:
    view, read = memoryview(buffer.numpy().data), 0
    while read < len(view):
        count = os.preadv(descriptor, [view[read:]], offset + read)
        if not count:
            raise IntegrityError(
                "a weight file became shorter while it was read", hint="no other program may change it"
            )
        read += count
