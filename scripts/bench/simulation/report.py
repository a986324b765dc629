"""The figures of a simulated run, in the terms of the rig's own report."""

import math
from collections.abc import Sequence
from typing import Any

from scripts.bench.rigs.reports import quantile, table

_COLUMNS = (
    ("nodes", "nodes", "{:.0f}"),
    ("pieces", "pieces", "{:.0f}"),
    ("bound", "T* s", "{:.2f}"),
    ("p50", "p50", "{:.2f}"),
    ("p95", "p95", "{:.2f}"),
    ("last", "last", "{:.2f}"),
    ("seeder_sent", "seeder", "{:.2f}"),
    ("mirror_sent", "mirror", "{:.2f}"),
    ("crossed", "crossed", "{:.2f}"),
    ("received", "down", "{:.3f}"),
    ("degree_mean", "links", "{:.0f}"),
    ("load", "leases", "{:.1%}"),
    ("leased_us", "us/piece", "{:.0f}"),
    ("wall_seconds", "took s", "{:.1f}"),
)
LEGEND = """\
p50, p95, last: from the first announce until half, 95 % and all of the nodes were complete, in T*
seeder, mirror: copies that they sent; crossed: copies that entered the zone which took the most
down: bytes on a node's link until complete / S
links: mean of a node's connections at the end; leases: the coordinator's CPU for the leases, as a share of one core,
and us per leased piece; took: seconds of this simulation"""
_COMPARED = ("p50", "p95", "last", "seeder_sent", "mirror_sent")


def summary(run: dict[str, Any], bound: float) -> dict[str, Any]:
    """The figures of `run`, times in multiples of `bound` seconds. A node that did not finish counts as infinite."""
    ready = [*run["ready"], *[math.inf] * run["unfinished"]]
    spent = run["coordinator"]["tell_seconds"] + run["coordinator"]["grant_seconds"]
    return run | {
        "bound": bound,
        "p50": quantile(ready, 0.5) / bound,
        "p95": quantile(ready, 0.95) / bound,
        "last": ready[-1] / bound,
        "load": spent / run["simulated_seconds"],
        "leased_us": 1e6 * spent / max(run["coordinator"]["leased"], 1),
        "lost": run["unfinished"],
    }


def simulation_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each summary."""
    return table(_COLUMNS, [(row["contestant"], row) for row in rows])


def ratios(real: Sequence[dict[str, Any]], simulated: Sequence[dict[str, Any]]) -> str:
    """Simulated / real, a line for each pair. Figures that the rig did not measure are left out."""
    lines = ["simulated / real:"]
    for row, found in zip(real, simulated, strict=True):
        measured = row | {"seeder_sent": row.get("seeder_says") or row["seeder_sent"]}
        compared = [key for key in _COMPARED if measured.get(key) and measured[key] > 0.05]
        parts = [f"{key} {found[key] / measured[key]:.2f}" for key in compared]
        lines.append(f"{row['contestant']}, {row['nodes']:.0f} nodes: {', '.join(parts)}")
    return "\n".join(lines)
