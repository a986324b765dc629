"""What a node says of the snapshots it brings here and serves: the words of the control API, for both of its ends."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from p2pmodel.core.connections import PeerConnection
from p2pmodel.core.names import Reference
from p2pmodel.core.progress import Progress, Timings

State = Literal["queued", "active", "seeding", "ready", "paused", "failed"]
"""`queued`: others go first; `active`: on its way here; `seeding`: here and served; `ready`: here, and in no swarm."""


@dataclass(frozen=True, slots=True)
class TransferError:
    """Why a transfer failed: code, message and hint as in the error tree."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class TransferView:
    """One transfer at one moment."""

    id: str
    repo: str
    commit: str
    revisions: tuple[str, ...]
    """Names that point at the commit, or will."""
    state: State
    complete: bool
    """Whether all that was asked for is here, verified and visible at `path`."""
    priority: int
    added: float
    """Seconds since 1970."""
    path: str
    size: int
    """Bytes of the whole snapshot; 0 while it is not known."""
    progress: Progress
    arrived: Progress | None = None
    """As it was when it became complete, and how long that took; None for what was so when the node started."""
    timings: Timings | None = None
    trouble: TransferError | None = None
    notes: tuple[str, ...] = ()
    """The last lines said about it."""
    noted: int = 0
    """How many lines were said in all."""
    rate: int = 0
    """Bytes a second that are verified, from all sources together, over the last seconds."""
    eta: float | None = None
    """Seconds until the last byte is here, if it goes on at `rate`; None while nothing comes."""
    engine_ready: bool = False
    """Whether an inference engine says that it has the model up."""


@dataclass(frozen=True, slots=True)
class PiecesView:
    """Where the pieces of a transfer are: bitfields, most significant bit first, in base64. `from_cache` and
    `from_mirrors` are parts of `have`, the rest came from peers. `availability`: in base64, a byte a piece, how many
    connected peers have it (255: or more). `count` is 0 while it is in no swarm."""

    transfer: str
    count: int
    have: str = ""
    from_cache: str = ""
    from_mirrors: str = ""
    availability: str = ""


@dataclass(frozen=True, slots=True)
class CatalogView:
    """A snapshot as the coordinators see its swarm. `origin_bytes`: what the peers took from mirrors together."""

    repo: str
    commit: str
    revisions: tuple[str, ...]
    size: int
    seeders: int
    leechers: int
    origin_bytes: int


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a snapshot (or, with no `model` named, the node) is ready, and if not, why."""

    model: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """A snapshot in the cache. `size` is of the whole snapshot in bytes, `missing` counts files that are not here."""

    repo: str
    commit: str
    revisions: tuple[str, ...]
    path: str
    size: int
    files: int
    missing: int


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Bytes a second to and from all peers together; 0: no limit."""

    upload: int = 0
    download: int = 0


@dataclass(frozen=True, slots=True)
class LimitsView:
    """What the limits were set to, and what the day and the hour make of them now. Bytes a second; 0: no limit. The
    schedules are as they were written."""

    upload: int
    download: int
    upload_now: int
    download_now: int
    upload_schedule: tuple[str, ...] = ()
    download_schedule: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeView:
    """A running node: its program's version, its cache, the ADDRESS:PORT where peers reach it, and the URL of its hub
    endpoint if it has one."""

    version: str
    cache_dir: str
    peer_address: str
    pid: int
    hub: str | None = None


@dataclass(frozen=True, slots=True)
class SwarmView:
    """How many peers one transfer is connected to, bytes a second and in all to and from them, and the busiest."""

    transfer: str
    repo: str
    peers: int
    download_rate: int
    upload_rate: int
    downloaded: int
    uploaded: int
    connections: tuple[PeerConnection, ...] = ()


@dataclass(frozen=True, slots=True)
class RemovedSnapshot:
    """A snapshot was taken out of the cache; `freed` bytes of blobs went."""

    repo: str
    commit: str
    freed: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transfer that would run; `order` is when it was asked for."""

    id: str
    priority: int
    order: float


def those_to_run(candidates: Iterable[Candidate], bound: int) -> frozenset[str]:
    """Ids of the at most `bound` transfers that run: the highest priority first, then who asked first.

    A transfer that runs stops for one of higher priority: what it has is kept, and it goes on from there.
    """
    ordered = sorted(candidates, key=lambda c: (-c.priority, c.order, c.id))
    return frozenset(candidate.id for candidate in ordered[:bound])


def named(views: Iterable[TransferView], ref: Reference) -> list[TransferView]:
    """The transfers that `ref` means: of that commit, or those to which that name points or will."""
    of_repo = [view for view in views if view.repo == str(ref.repo)]
    return [view for view in of_repo if view.commit == ref.revision or ref.revision in view.revisions]
