"""The report of a bootstrap: hosts ready, hosts failed with their reasons, and where the bytes came from. Pure."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from p2pmodel.cluster.bootstrap.plan import BootstrapPlan
from p2pmodel.cluster.bootstrap.roster import WITH_FILES, HostEntry, Roster
from p2pmodel.core.sizes import duration, human
from p2pmodel.errors import PartialCluster

Fold = Callable[[Sequence[str]], str]


def plain(plan: BootstrapPlan, roster: Roster, seconds: float, fold: Fold) -> dict[str, Any]:
    """The report as one JSON object."""
    done, failed = roster.done, roster.failed
    nodes = {name: _node(entry) for name, entry in roster.entries.items()}
    return plan.plain() | {
        "hosts": len(roster.entries),
        "ready": len(done),
        "needed": plan.needed,
        "seconds": round(seconds, 3),
        "stages": {stage: round(spent, 3) for stage, spent in roster.spent.items()},
        "changed": any(entry.changed for entry in roster.entries.values()),
        "failed": fold([entry.name for entry in failed]) if failed else "",
        "nodes": nodes,
    }


def words(plan: BootstrapPlan, roster: Roster, seconds: float) -> list[str]:
    """The report as lines: the failed hosts, then the sum."""
    lines = [f"{entry.name}: {_reason(entry)}" for entry in roster.failed]
    done = roster.done
    times = sorted(entry.seconds for entry in done if entry.seconds)
    if len(done) == len(roster.entries) and not any(entry.changed for entry in done):
        return [f"all {len(done)} hosts had {plan.ref} already: nothing to do ({seconds:.1f} s)"]
    line = f"{len(done)} of {len(roster.entries)} hosts are ready" + _with_model(done)
    if times:
        middle = times[len(times) // 2]
        line += f"; the fetch took {duration(middle)} on half of them, {duration(times[-1])} on the last"
    mirrors, peers = (sum(_bytes(entry)[source] for entry in done) for source in ("mirrors", "peers"))
    if peers:
        line += f"; {human(peers)} came from seeders and peers"
    if mirrors:
        line += f"; {human(mirrors)} came from mirrors"
    return [*lines, line]


def verdict(plan: BootstrapPlan, roster: Roster, hint: str) -> PartialCluster | None:
    """The error of a bootstrap with fewer hosts ready than it needs."""
    done = len(roster.done)
    if done >= plan.needed:
        return None
    return PartialCluster(f"{done} of {len(roster.entries)} hosts are ready, {plan.needed} are needed", hint=hint)


def examined(roster: Roster) -> list[str]:
    """The end of a preflight alone."""
    sound = len(roster.at("passed", *WITH_FILES))
    lines = [f"{entry.name}: {_reason(entry)}" for entry in roster.failed]
    return [*lines, f"{sound} of {len(roster.entries)} hosts pass the preflight; nothing was started"]


def refused(roster: Roster, hint: str) -> PartialCluster | None:
    """The error of a preflight that some hosts do not pass."""
    failed = len(roster.failed)
    if not failed:
        return None
    return PartialCluster(f"{failed} of {len(roster.entries)} hosts do not pass the preflight", hint=hint)


def _node(entry: HostEntry) -> dict[str, Any]:
    found: dict[str, Any] = {"stage": entry.stage, "seconds": entry.seconds, "bytes": _bytes(entry)}
    if entry.loaded:
        found |= dataclasses.asdict(entry.loaded)
    if entry.serving:
        found["serving"] = True
    if entry.failure:
        found |= {"code": entry.failure.code, "reason": _reason(entry)}
    return found


def _with_model(done: Sequence[HostEntry]) -> str:
    """How long the slowest hosts took with the model, in words."""
    found = [entry.loaded for entry in done if entry.loaded]
    if not found:
        return ""
    words = f"; the slowest took {max(each.load_seconds for each in found):.1f} s to load the model"
    first = [each.first_token_seconds for each in found if each.first_token_seconds is not None]
    return words + (f", {max(first):.1f} s to its first token" if first else "")


def _bytes(entry: HostEntry) -> dict[str, int]:
    found = entry.progress
    return {"peers": found.peers, "mirrors": found.mirrors, "cache": found.cache}


def _reason(entry: HostEntry) -> str:
    return str(entry.failure).removeprefix(f"{entry.name}: ") if entry.failure else ""
