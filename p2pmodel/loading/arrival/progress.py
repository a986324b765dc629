"""The progress of a load that runs while the files arrive."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

LoadPhase = Literal["waiting", "loading", "verifying", "loaded"]
"""Waiting for the small files and the headers of the shards, loading tensors as they arrive, all tensors loaded but
not every file verified, done."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Bytes of tensors: handed to the model (`loaded`), arrived in the cache, and all of them (0 while unknown)."""

    phase: LoadPhase
    loaded: int = 0
    arrived: int = 0
    total: int = 0


OnLoadProgress = Callable[[LoadProgress], object]
"""Called in the event loop."""
