"""What a use case reports while it runs: one frozen snapshot of numbers, and notes in words."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["finding", "checking", "mirroring", "hashing", "downloading", "publishing", "seeding", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One transfer at one moment. Bytes; `done` of `total` are verified. Rates in bytes a second."""

    phase: Phase
    total: int = 0
    done: int = 0
    from_cache: int = 0
    """Bytes that were on this node already."""
    from_peers: int = 0
    from_mirrors: int = 0
    uploaded: int = 0
    peers: int = 0
    download_rate: int = 0
    upload_rate: int = 0
    waiting_for: str = ""
    """What would unblock the transfer; empty while it moves."""


def _silent_progress(progress: Progress) -> None: ...


def _silent_note(line: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Reporter:
    """Where a use case reports to. Called on the event loop; must not block."""

    progress: Callable[[Progress], None] = field(default=_silent_progress)
    note: Callable[[str], None] = field(default=_silent_note)
