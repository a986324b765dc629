"""What a fetch is asked for, and what it returns; imports nothing that a client of the daemon does not need."""

import math
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, Selection
from p2pmodel.core.progress.progress import Progress, Timings
from p2pmodel.node.snapshot.target import Target

FOR_EVER = math.inf


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What to fetch, and how long to serve it afterwards (`seed_seconds`, `seed_ratio`; None: no such bound).

    With neither bound the fetch ends when the snapshot is ready; `FOR_EVER` has no end. `also` selects further files.
    `peers` are connected to beside those that trackers return. `names`: refs that will point at the commit, beside the
    revision of the target. `fresh`: a revision that no source answers for is an error; else it is what the cache has.
    """

    target: Target
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    also: tuple[Selection, ...] = ()
    seed_seconds: float | None = None
    seed_ratio: float | None = None
    peers: tuple[tuple[str, int], ...] = ()
    names: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class FetchResult:
    """A snapshot that is ready, the sources of its bytes, and its voucher."""

    manifest: Manifest
    path: Path
    timings: Timings
    progress: Progress
    vouched_by: str
    """The voucher of the manifest, named as in `node/snapshot/voucher`."""
