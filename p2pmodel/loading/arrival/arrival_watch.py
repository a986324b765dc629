"""The files that a load waits for: one task looks at the disk, the threads of transformers wait for ranges.

Invariants, to re-check when editing:
1. Every wait ends: by bytes, or by the one failure that all waits raise. A thread that waited for ever would keep the
   interpreter from its end.
2. One thread at a time looks, and none after `close`: the thread of a cancelled look goes on. Everything else may be
   called from any thread.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from p2pmodel.errors import IntegrityError
from p2pmodel.loading.arrival.tensor_order import TensorRange
from p2pmodel.store.arriving_file import ArrivingFile

_LOOK = 1.0
"""Seconds after which a waiting thread looks again, should a wake-up be lost."""


class ArrivalWatch:
    """Watches `files`, by path in the repository."""

    def __init__(self, files: Mapping[str, ArrivingFile]) -> None:
        self._files = dict(files)
        self._changed = threading.Condition()
        self._looking = threading.Lock()
        self._closed = False
        self._failure: BaseException | None = None
        self._taken = 0
        self._total = 0

    def look(self) -> None:
        """Look at the disk once, and wake the waiting threads. Blocks."""
        with self._looking:
            changed = [arriving.look() for arriving in self._files.values()] if not self._closed else []
        wrong = self.wrong
        if wrong:
            self.fail(IntegrityError(f"wrong bytes arrived for {wrong[0]}", hint="they are downloaded again"))
        if any(changed):
            self.wake()

    def fail(self, error: BaseException) -> None:
        """Make all waits, present and future ones, raise `error`; a later failure changes nothing."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def wake(self) -> None:
        """Make the waiting threads look at what they wait for."""
        with self._changed:
            self._changed.notify_all()

    def file(self, path: str) -> ArrivingFile:
        """The file at `path`."""
        return self._files[path]

    def gaps(self, path: str, start: int, end: int) -> Sequence[tuple[int, int]]:
        """The parts of [start, end) of the file that cannot be read yet."""
        return self._files[path].arrived.gaps(start, end)

    def wait(self, path: str, start: int, end: int) -> None:
        """Return once [start, end) of the file can be read. Raises the failure."""
        arriving = self._files[path]
        self._wait_for(lambda: arriving.has(start, end))

    def wait_for_length(self, path: str) -> None:
        """Return once the file has its final length. Raises the failure."""
        arriving = self._files[path]
        self._wait_for(lambda: arriving.is_full_length)

    def wait_verified(self, path: str) -> None:
        """Return once the whole file is verified. Raises the failure."""
        arriving = self._files[path]
        self._wait_for(lambda: arriving.is_verified)

    def wait_for_any(self, places: Iterable[TensorRange], stop: threading.Event) -> list[TensorRange]:
        """Those of `places` that can be read, as soon as there is one; none after `stop`. Raises the failure."""
        waiting = list(places)
        found: list[TensorRange] = []

        def some() -> bool:
            found[:] = [each for each in waiting if self._files[each.shard].has(each.start, each.end)]
            return bool(found) or stop.is_set()

        self._wait_for(some)
        return found

    def expect(self, total: int) -> None:
        """All tensors together have `total` bytes."""
        self._total = total

    def taken(self, size: int) -> None:
        """A tensor of `size` bytes was handed to the model."""
        with self._changed:
            self._taken += size

    @property
    def failure(self) -> BaseException | None:
        """What all waits raise."""
        return self._failure

    @property
    def progress(self) -> tuple[int, int, int]:
        """Bytes of tensors handed over, bytes of the watched files that arrived, bytes of all tensors."""
        return self._taken, sum(each.arrived_bytes for each in self._files.values()), self._total

    @property
    def wrong(self) -> list[str]:
        """Paths of files of which wrong bytes had arrived."""
        return [path for path, arriving in self._files.items() if arriving.is_wrong]

    @property
    def is_verified(self) -> bool:
        """Whether every file is in the cache, and verified."""
        return all(arriving.is_verified for arriving in self._files.values())

    @property
    def is_proved(self) -> bool:
        """Whether everything that was read is verified."""
        return all(arriving.is_proved for arriving in self._files.values())

    def close(self) -> None:
        """Close the files, once no thread looks at them. Blocks."""
        with self._looking:
            self._closed = True
            for arriving in self._files.values():
                arriving.close()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            while True:
                if self._failure is not None:
                    raise self._failure
                if condition():
                    return
                self._changed.wait(_LOOK)
