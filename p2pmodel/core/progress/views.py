"""Objects of the control API, for the node and its clients: transfers, snapshots, limits, swarms, follow lists."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from p2pmodel.core.content.names import Reference, RepoId, abbreviates, one_commit
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.progress.progress import Progress, Timings

State = Literal["queued", "active", "seeding", "ready", "paused", "failed"]
"""`queued`: waits for other transfers, or for a window; `active`: downloads; `seeding`: complete and in the swarm;
`ready`: complete, in no swarm."""

EngineState = Literal["none", "loading", "loaded", "answered", "failed"]
"""The state of a model in an inference engine: on its way to the device, on it, with a first answer, or that it
cannot be loaded."""
SERVING: tuple[EngineState, ...] = ("loaded", "answered")


@dataclass(frozen=True, slots=True)
class GateTimes:
    """When each gate was passed, in seconds since 1970: the `files` verified, the model `loaded`, the first token
    `answered`. None before, and for what was passed before this node started."""

    files: float | None = None
    loaded: float | None = None
    answered: float | None = None

    def after(self, state: EngineState, now: float) -> "GateTimes":
        """The times after an engine's report at `now`. A new load passes the gates again; the end of an engine takes
        nothing back."""
        if state in ("loading", "failed"):
            return replace(self, loaded=None, answered=None)
        if state not in SERVING:
            return self
        answered = self.answered or (now if state == "answered" else None)
        return replace(self, loaded=self.loaded or now, answered=answered)


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
    """Names that point to the commit, now or when it is complete."""
    state: State
    complete: bool
    """Whether all requested files are verified and visible at `path`, and unchanged since they were verified."""
    priority: int
    added: float
    """Seconds since 1970."""
    path: str
    size: int
    """Bytes of the whole snapshot; 0 while unknown."""
    progress: Progress
    completion: Progress | None = None
    """Progress at the end of the download; None if the snapshot was complete when the node started."""
    timings: Timings | None = None
    """Duration of the download; None as for `completion`."""
    error: TransferError | None = None
    notes: tuple[str, ...] = ()
    """The last notes about it."""
    note_count: int = 0
    """Number of notes so far."""
    rate: int = 0
    """Bytes a second that arrive from all sources, over the last seconds."""
    eta: float | None = None
    """Seconds until the last byte at this `rate`; None while no byte comes."""
    doubted: int = 0
    """Number of files that are missing, damaged, or changed since they were verified. The transfer checks them and
    downloads what is wrong."""
    engine_ready: bool = False
    """Whether an inference engine reported that it serves the model."""
    engine: EngineState = "none"
    """The same, more exactly."""
    engine_reached: EngineState = "none"
    """`loaded` or `answered` once an engine has reported it of these files, also after that engine has ended."""
    gates: GateTimes = GateTimes()
    """When it passed the gates of a roll-out."""
    vouched_by: str = ""
    """The voucher of the list of its files: `mirror NAME`, `record`, `commit`, `coordinator` or `cache`."""
    prefetch: bool = False
    """Whether only a follow list asked for what is still missing."""
    awaits_window: bool = False
    """Whether some of what a follow list asked for waits for its window."""
    followed: bool = False
    """Whether a follow list has it. It is not removed for space then."""


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
class FirstPiecesView:
    """The answer to a request for places of a transfer before others. `in_swarm`: whether its files come from
    peers now; only then does it have an effect. `pieces`: missing pieces of the repository that come first now."""

    in_swarm: bool
    pieces: int


@dataclass(frozen=True, slots=True)
class CatalogView:
    """A snapshot's swarm according to the coordinators. `origin_bytes`: bytes that all peers took from mirrors
    under leases. `cut_off`: nodes that got nothing from their peers, and took the rest from mirrors without leases.
    `unreachable`: addresses at which the coordinator could not connect to a node, with the reasons."""

    repo: str
    commit: str
    revisions: tuple[str, ...]
    size: int
    seeders: int
    leechers: int
    origin_bytes: int
    cut_off: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutSummary:
    """A roll-out of a coordinator: of so many `nodes` so many have `passed` the last `gate`; `p50` and `last`: seconds
    until half and all of them had, None before. `rate` of all nodes together, bytes a second. `origin_copies`: bytes
    from mirrors by bytes of the model. `slow`: the nodes behind the others, each with its reason. `began`: seconds
    since 1970."""

    id: str
    repo: str
    commit: str
    state: str
    began: float
    elapsed: float
    gate: str
    nodes: int
    passed: int
    p50: float | None
    last: float | None
    rate: int
    origin_copies: float | None
    failed: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a snapshot (or, with an empty `model`, the node) is ready; `reason` if not."""

    model: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """A snapshot in the cache. `size`: bytes of the whole snapshot; `missing`: number of absent files; `doubted`:
    number of files that are damaged, or have changed since they were verified; `staged`: bytes of unfinished files.

    `partial`: its download has not ended, and no other program sees it; `held` of its bytes are here."""

    repo: str
    commit: str
    revisions: tuple[str, ...]
    path: str
    size: int
    files: int
    missing: int
    doubted: int = 0
    staged: int = 0
    partial: bool = False
    held: int = 0


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Bytes a second to all peers, and from all sources (peers, seeders, mirrors), together; 0: no limit."""

    upload: int = 0
    download: int = 0


@dataclass(frozen=True, slots=True)
class LimitsView:
    """Configured limits, and the limits in force now by the schedules. Bytes a second; 0: no limit. The schedules are
    as configured."""

    upload: int
    download: int
    upload_now: int
    download_now: int
    upload_schedule: tuple[str, ...] = ()
    download_schedule: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeView:
    """A running node: version, cache, ADDRESS:PORT for peers, and the URL of its hub endpoint, if any."""

    version: str
    cache_dir: str
    peer_address: str
    pid: int
    hub: str | None = None


@dataclass(frozen=True, slots=True)
class SwarmView:
    """Peers of one transfer: their number, rates in bytes a second (HTTP sources included), total bytes, and the
    busiest connections."""

    transfer: str
    repo: str
    peers: int
    download_rate: int
    upload_rate: int
    downloaded: int
    uploaded: int
    connections: tuple[PeerConnection, ...] = ()


@dataclass(frozen=True, slots=True)
class SpaceView:
    """The space of the cache in bytes: its `budget`, None without one; what it `used` at the last look, with what
    running downloads will add; what of it is `over` the budget and must stay. Since the node started `removed`
    snapshots left, which `freed` so much."""

    budget: int | None = None
    used: int | None = None
    over: int = 0
    removed: int = 0
    freed: int = 0


@dataclass(frozen=True, slots=True)
class ScrubView:
    """The background check of the cache. `running`: a pass over all blobs is under way, which has read `done` of
    `total` bytes. `ended`: the end of the last complete pass, seconds since 1970. Since the node started it has `read`
    so many bytes and `found` so many damaged blobs."""

    enabled: bool = False
    running: bool = False
    done: int = 0
    total: int = 0
    ended: float | None = None
    read: int = 0
    found: int = 0


@dataclass(frozen=True, slots=True)
class RemovedSnapshot:
    """A snapshot was removed from the cache; `freed`: bytes that its blobs and unfinished files occupied."""

    repo: str
    commit: str
    freed: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transfer that may run; `order`: time of its request; `awaited`: a client of the hub endpoint waits for it."""

    id: str
    priority: int
    order: float
    awaited: bool = False


def to_run(candidates: Iterable[Candidate], bound: int) -> frozenset[str]:
    """Ids of the at most `bound` transfers that run: highest priority first, then those that a client waits for, then
    the earliest request.

    A running transfer stops for one that goes first, and resumes later.
    """
    ordered = sorted(candidates, key=lambda c: (-c.priority, not c.awaited, c.order, c.id))
    return frozenset(candidate.id for candidate in ordered[:bound])


def of_repository(views: Iterable[TransferView], repo: RepoId) -> list[TransferView]:
    """The transfers of `repo`, in whichever spelling."""
    return [view for view in views if view.repo.lower() == repo.folded]


def matching(views: Iterable[TransferView], ref: Reference) -> list[TransferView]:
    """The transfers that `ref` denotes: by commit, by a revision name of theirs, or by the beginning of a commit.

    Raises InvalidInput where several commits begin so.
    """
    of_repo = of_repository(views, ref.repo)
    exact = [view for view in of_repo if view.commit == ref.revision or ref.revision in view.revisions]
    if exact or not abbreviates(ref.revision):
        return exact
    fitting = [view for view in of_repo if view.commit.startswith(ref.revision)]
    if fitting:
        one_commit(str(ref), {view.commit for view in fitting})
    return fitting


@dataclass(frozen=True, slots=True)
class FollowedSnapshot:
    """A snapshot that a follow list has. `transfer`: its id; `state` of it: that of a transfer, or `none` where there
    is none. `complete`: all files that the list asks for are here and verified. Of the `total` bytes of the transfer
    `done` are verified."""

    repo: str
    revision: str
    commit: str
    transfer: str
    state: str
    complete: bool = False
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class FollowView:
    """One follow list. `window` and `zone` are as configured, "" for all times and this machine's zone; `is_open` now,
    which `changes` then. `checked`: the last look at its commits that succeeded; `next_check`: the next one, if the
    window is open then. `error`: why the last look failed, or its transfers. Times are in seconds since 1970."""

    repo: str
    revision: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    window: str
    zone: str
    is_open: bool
    changes: float | None
    snapshots: tuple[FollowedSnapshot, ...] = ()
    checked: float | None = None
    next_check: float | None = None
    error: str = ""
