"""Progress of a transfer in numbers, for the control API and the command line."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal[
    "finding", "checking", "mirroring", "hashing", "downloading", "verifying", "publishing", "seeding", "done"
]
"""`checking`: hashes of files that exist already; `verifying`: all bytes came, some whole-file hashes are pending."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One transfer at one moment. `done` of `total` bytes are verified. Rates: bytes a second over the last seconds."""

    phase: Phase
    total: int = 0
    done: int = 0
    from_cache: int = 0
    """Bytes that were in the cache before."""
    from_peers: int = 0
    from_mirrors: int = 0
    from_other_zones: int | None = None
    """Part of `from_peers`: bytes from peers of other zones; None if this node has no zone."""
    uploaded: int = 0
    peers: int = 0
    download_rate: int = 0
    """Bytes/s from all sources together: peers, seeders and mirrors; 0 once nothing is missing."""
    upload_rate: int = 0
    waiting_for: str = ""
    """What the transfer waits for; empty while bytes come."""
    rejected: int = 0
    """Pieces that failed their hash check."""
    from_seeders: int = 0
    """Part of `from_peers`: bytes from seeders over HTTP (web seeds)."""
    exception: str = ""
    """How this node took more from mirrors than its swarm's rules allow, and why; empty if it did not."""
    unreachable: str = ""
    """Which peers cannot connect to this node, or it to them; empty if there is no such trouble."""

    @property
    def eta(self) -> float | None:
        """Seconds until the last byte at the present rate; None while no byte arrives."""
        missing = self.total - self.done
        return missing / self.download_rate if self.download_rate and missing > 0 else None


@dataclass(frozen=True, slots=True)
class Pieces:
    """Bitfields (`core/bitfield`) of `count` pieces: those verified (`have`), and of these the ones from the cache and
    from mirrors. `availability`: one byte per piece, how many connected peers have it, at most 255; may be empty."""

    count: int = 0
    have: bytes = b""
    from_cache: bytes = b""
    from_mirrors: bytes = b""
    availability: bytes = b""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds until a snapshot was ready: in total, and for the look-up (`find`), `download` and `verify`.

    Most hashing overlaps with the download. `verify` is the rest: the check of existing files, and after the last byte
    the last whole-file hashes and the links.
    """

    total: float
    find: float
    download: float
    verify: float


def cut_off(node: str) -> str:
    """The exception of a node that gets nothing from its peers."""
    return f"node {node} cannot reach its peers"


@dataclass(frozen=True, slots=True)
class FileProgress:
    """One file of a transfer: `done` of `size` bytes are here. `verified`: its hash is that of the hub."""

    path: str
    size: int
    done: int
    verified: bool = False
