"""How far a transfer is, in numbers: what use cases report, the control API carries and the command line shows."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal[
    "finding", "checking", "mirroring", "hashing", "downloading", "verifying", "publishing", "seeding", "done"
]
"""`checking`: what is here already; `verifying`: every byte has come, the last whole-file hashes have not."""


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
    from_other_zones: int | None = None
    """Bytes that peers of other zones sent, those of no use counted too; None where this node has no zone."""
    uploaded: int = 0
    peers: int = 0
    download_rate: int = 0
    upload_rate: int = 0
    waiting_for: str = ""
    """What would unblock the transfer; empty while it moves."""
    rejected: int = 0
    """Pieces that came and failed their hash check."""
    from_seeders: int = 0
    """Part of `from_peers`: what was pulled from seeders over HTTP, as from webseeds."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Which of `count` pieces are here (`have`), which of those were before, which came from mirrors: bitfields as in
    `core/bitfield`. `availability`: how many connected peers have each, at most 255, in a byte; may be empty."""

    count: int = 0
    have: bytes = b""
    from_cache: bytes = b""
    from_mirrors: bytes = b""
    availability: bytes = b""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds until a snapshot was ready: all in all, and what `find`ing out about it, `download` and `verify` took.

    Most of the hashing is done while bytes still come. `verify` is the rest, which the download did not hide: looking
    at what was here before, and after the last byte the last whole-file hashes and the links.
    """

    total: float
    find: float
    download: float
    verify: float
