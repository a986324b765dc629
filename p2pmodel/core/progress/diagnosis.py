"""Diagnosis of a transfer: what bounds it now, and what would help. Pure, from two views of it and the host's bounds.

The bounds are tried in the order of `Bound`, and the first that applies is the result: a queued transfer gains nothing
from a quicker disk.
"""

from dataclasses import dataclass
from typing import Literal

from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.progress.views import EngineState, TransferView

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
    "unreachable",
    "cut off",
    "seeder",
]
"""`limit`: the configured download limit; `link`: this machine's link; `seeder`: the uplinks of the peers; `cut
off`: the node takes from mirrors what it should get from its peers; `unreachable`: no connections between them."""

_OPEN = "open the port for peers between the nodes, or choose swarm.listen and swarm.advertise so that they reach it"
_AFTER_FILES: dict[EngineState, tuple[str, str]] = {
    "none": ("it is complete", ""),
    "loading": ("it is complete; an engine loads it", ""),
    "loaded": ("it is complete; an engine has loaded it, and has not answered yet", ""),
    "answered": ("it is complete; an engine has loaded it and answered", ""),
    "failed": ("it is complete; an engine could not load it", "see the engine's log"),
}
"""The text about a complete snapshot, and the advice, by the last report of an engine."""
FULL = 0.85
"""Share of a known bound from which it counts as reached."""
DISK_PRESSURE = 40.0
"""Percent of the time with a process waiting for the disk, from which the disk counts as the bound."""


@dataclass(frozen=True, slots=True)
class HostBounds:
    """Bytes a second: the download `limit` and the `upload_limit` (0: none), the speed of this machine's `link` and of
    the `mirrors` together; `disk_pressure` in percent. None where it is not known. `others`: what other transfers of
    the node receive, within the same limit and link."""

    limit: int = 0
    link: float | None = None
    mirrors: float | None = None
    disk_pressure: float | None = None
    others: float = 0.0
    upload_limit: int = 0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The `bound`, described by `what`, and the `advice` that would help. `rate`: bytes a second now; `capacity`: the
    bound's; `ratio`: rate by capacity. None where unknown."""

    transfer: str
    repo: str
    bound: Bound
    what: str
    advice: str
    rate: float = 0.0
    capacity: float | None = None
    ratio: float | None = None


def explain(before: TransferView, now: TransferView, seconds: float, around: HostBounds) -> Diagnosis:
    """What bounds a transfer, from its views `before` and `now`, `seconds` apart."""
    standing = _at_rest(now)
    if standing is not None:
        return Diagnosis(now.id, now.repo, *standing)
    return explain_progress(before.progress, now.progress, seconds, around, transfer=now.id, repo=now.repo)


def explain_progress(
    before: Progress, now: Progress, seconds: float, around: HostBounds, *, transfer: str = "", repo: str = ""
) -> Diagnosis:
    """What bounds a transfer that runs, from its progress `before` and `now`, `seconds` apart."""
    at_work = _at_work(now, around)
    if at_work is not None:
        return Diagnosis(transfer, repo, *at_work)
    mirrors = max(0, now.from_mirrors - before.from_mirrors) / seconds
    # Received bytes: verified pieces come in lumps, on a slow link seconds apart.
    rate = float(now.download_rate)
    bound, what, advice, capacity = _while_bytes_come(now, rate, mirrors, around)
    used = rate + around.others if bound in ("limit", "link") else rate
    return Diagnosis(transfer, repo, bound, what, advice, rate, capacity, used / capacity if capacity else None)


def _at_rest(view: TransferView) -> tuple[Bound, str, str] | None:
    if view.state == "failed" and view.error:
        return "failed", view.error.message, view.error.hint or "correct that, then run 'p2pmodel resume'"
    if view.state == "paused":
        return "paused", "it is paused", "run 'p2pmodel resume'"
    if view.complete:
        return "nothing", *_AFTER_FILES[view.engine if view.engine != "none" else view.engine_reached]
    if view.awaits_window and view.state == "queued":
        return "queue", "the window of its follow list is closed", "'p2pmodel resume' lets it run now"
    if view.state == "queued":
        return "queue", "other transfers use all download slots", "raise its priority, or daemon.max_active"
    return None


def _at_work(progress: Progress, around: HostBounds) -> tuple[Bound, str, str] | None:
    phase = progress.phase
    if phase == "finding":
        source = progress.waiting_for or "the coordinators and the mirrors"
        return "lookup", f"it waits for {source}", "check that a coordinator or a mirror answers"
    if phase in ("checking", "hashing", "verifying", "publishing"):
        if (around.disk_pressure or 0.0) >= DISK_PRESSURE:
            return "disk", f"{phase} waits for the disk", "a faster disk for the cache"
        return "hash", f"{phase}: this machine hashes files", "more or faster cores"
    return None


def _while_bytes_come(
    progress: Progress, rate: float, mirrors: float, around: HostBounds
) -> tuple[Bound, str, str, float | None]:
    together = rate + around.others
    if around.limit and together >= FULL * around.limit:
        return "limit", "the download limit is reached", "raise it with 'p2pmodel limits --download'", around.limit
    if around.link and together >= FULL * around.link:
        return "link", "this machine's link is full", "nothing: this is the maximum", around.link
    if (around.disk_pressure or 0.0) >= DISK_PRESSURE:
        return "disk", "this machine waits for its disk", "a faster disk for the cache", None
    if progress.phase == "mirroring" or mirrors > rate / 2:
        return *_by_mirrors(progress.exception), around.mirrors
    if not progress.peers:
        return *_without_peers(progress), None
    return "seeder", "the peers send no faster", "more peers with the snapshot, or a faster seeder", around.link


def _without_peers(progress: Progress) -> tuple[Bound, str, str]:
    if progress.unreachable:
        return "unreachable", progress.unreachable, _OPEN
    missing = progress.waiting_for or "peers (none is connected)"
    return "no peers", f"it waits for {missing}", "start a seeder, or configure the coordinator of one"


def _by_mirrors(exception: str) -> tuple[Bound, str, str]:
    if exception:
        advice = "check that the nodes reach each other's swarm.listen, and that no firewall is between them"
        return "cut off", f"{exception}: the rest comes from the mirrors", advice
    return "mirrors", "the bytes come from mirrors", "add a mirror, or seed it from a node"
