"""What bounds a transfer now, and what would help. Pure: two looks at it, and what is known of its surroundings.

The bounds are tried in this order, and the first that holds is the answer: a transfer that waits for its turn has no
use for a quicker disk.
"""

from dataclasses import dataclass
from typing import Literal

from p2pmodel.core.views import TransferView

Bound = Literal[
    "failed",
    "paused",
    "queue",
    "nothing",
    "lookup",
    "hash",
    "disk",
    "limit",
    "link",
    "mirrors",
    "no peers",
    "seeder",
]
"""`limit`: what the user set; `link`: this machine's own; `seeder`: the uplinks of the peers that have it."""

FULL = 0.85
"""Of a bound that is known, from which on it counts as what binds."""
DISK_PRESSURE = 40.0
"""Percent of the time in which some process waited for the disk, from which on it counts as what binds."""


@dataclass(frozen=True, slots=True)
class HostBounds:
    """Bytes a second: the download `limit` (0: none), the speed of this machine's `link` and of the `mirrors` together;
    `disk_pressure` in percent. None where it is not known."""

    limit: int = 0
    link: float | None = None
    mirrors: float | None = None
    disk_pressure: float | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`bound` binds: `what` says so, `advice` what would help. `rate` is bytes a second now, `capacity` the bound's own
    and `ratio` the one by the other, where they are known."""

    transfer: str
    repo: str
    bound: Bound
    what: str
    advice: str
    rate: float = 0.0
    capacity: float | None = None
    ratio: float | None = None


def explain(before: TransferView, now: TransferView, seconds: float, around: HostBounds) -> Diagnosis:
    """What bounds the transfer that was `before` and is `now`, `seconds` later."""
    standing = _at_rest(now) or _at_work(now, around)
    if standing is not None:
        return Diagnosis(now.id, now.repo, *standing)
    mirrors = max(0, now.progress.from_mirrors - before.progress.from_mirrors) / seconds
    # Of peers the engine counts what arrives; verified pieces come in lumps, on a slow link seconds apart.
    peers = float(now.progress.download_rate if now.progress.phase == "downloading" else 0)
    bound, what, advice, capacity = _while_bytes_come(now, peers, mirrors, around)
    rate = mirrors if bound == "mirrors" else peers if bound == "limit" else peers + mirrors
    return Diagnosis(now.id, now.repo, bound, what, advice, rate, capacity, rate / capacity if capacity else None)


def _at_rest(view: TransferView) -> tuple[Bound, str, str] | None:
    if view.state == "failed" and view.trouble:
        return "failed", view.trouble.message, view.trouble.hint or "mend that, then 'p2pmodel resume'"
    if view.state == "paused":
        return "paused", "it is paused", "'p2pmodel resume' goes on with it"
    if view.complete:
        return "nothing", "it is complete", ""
    if view.state == "queued":
        return "queue", "as many as may download others", "raise its priority, or daemon.max_active"
    return None


def _at_work(view: TransferView, around: HostBounds) -> tuple[Bound, str, str] | None:
    phase = view.progress.phase
    if phase == "finding":
        asking = view.progress.waiting_for or "the coordinators and the mirrors"
        return "lookup", f"it waits for {asking}", "check that a coordinator or a mirror answers"
    if phase in ("checking", "hashing", "verifying", "publishing"):
        if (around.disk_pressure or 0.0) >= DISK_PRESSURE:
            return "disk", f"{phase} waits for the disk", "a faster disk for the cache"
        return "hash", f"{phase}: what is here is being hashed", "more or faster cores"
    return None


def _while_bytes_come(
    view: TransferView, peers: float, mirrors: float, around: HostBounds
) -> tuple[Bound, str, str, float | None]:
    if around.limit and peers >= FULL * around.limit:
        return "limit", "the download limit is used up", "'p2pmodel limits --download' raises it", around.limit
    if around.link and peers + mirrors >= FULL * around.link:
        return "link", "this machine's own link is full", "nothing: it is as fast as it can be", around.link
    if (around.disk_pressure or 0.0) >= DISK_PRESSURE:
        return "disk", "this machine waits for its disk", "a faster disk for the cache", None
    if view.progress.phase == "mirroring" or mirrors > peers:
        return "mirrors", "the bytes come from mirrors", "add a mirror, or let a node seed it", around.mirrors
    if not view.progress.peers:
        missing = view.progress.waiting_for or "peers (none is connected)"
        return "no peers", f"it waits for {missing}", "start a seeder, or name a coordinator that knows one", None
    return "seeder", "the peers that have it send no faster", "more peers that have it, or a faster seeder", around.link
