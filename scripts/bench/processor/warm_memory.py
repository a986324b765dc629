"""Keeps the memory of a RAM disk with this machine while programs write to it.

The host of a virtual machine takes back memory that is free for some seconds, or more than a certain amount of it. The
next program that writes there pays for that: up to 2 CPU-seconds a GB, which is more than most of what is measured.
"""

import os
import threading
from pathlib import Path
from typing import Self

from scripts.bench.rigs.baseline import MIB

SLACK = 512 * MIB
"""Bytes that are free while a program writes: for what it writes until the next look, and for its own memory."""
LOOK_EVERY = 0.02
_BLOCK = MIB


class WarmMemory:
    """A file in `folder` that holds the memory for `size` bytes of other files, and gives it up as they grow."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path = folder / "warm"
        self._size = size
        self._before = 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._before, block = self._used(), os.urandom(_BLOCK)
        with self._path.open("wb", buffering=0) as file:
            for _ in range(0, self._size + SLACK, _BLOCK):
                file.write(block)
        self._give_up()
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()
        self._path.unlink()

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            self._give_up()

    def _give_up(self) -> None:
        held = self._path.stat().st_size
        written = self._used() - self._before - held
        if (left := max(0, self._size - max(0, written))) < held:
            os.truncate(self._path, left)

    def _used(self) -> int:
        found = os.statvfs(self._path.parent)
        return (found.f_blocks - found.f_bfree) * found.f_frsize
