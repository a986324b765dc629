"""What a simulated run comes to, in the words of the rig's own report."""

import math
from collections.abc import Sequence
from typing import Any

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
seeder, mirror, crossed: copies that they sent, and that crossed zones; down: bytes on a node's link until complete / S
links: mean of a node's connections at the end; leases: the coordinator's CPU for tell and grant, as a share of one
core, and us for each leased piece; took: seconds of this simulation"""
_COMPARED = ("p50", "p95", "last", "seeder_sent", "mirror_sent")


def summary(run: dict[str, Any], bound: float) -> dict[str, Any]:
    """The figures of `run`, times in multiples of `bound` seconds. Who was not complete in time counts as infinite."""
    ready = [*run["ready"], *[math.inf] * run["unfinished"]]
    spent = run["coordinator"]["tell_seconds"] + run["coordinator"]["grant_seconds"]
    return run | {
        "bound": bound,
        "p50": _quantile(ready, 0.5) / bound,
        "p95": _quantile(ready, 0.95) / bound,
        "last": ready[-1] / bound,
        "load": spent / run["simulated_seconds"],
        "leased_us": 1e6 * spent / max(run["coordinator"]["leased"], 1),
        "lost": run["unfinished"],
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each summary."""
    lines = [f"{'':12}" + "".join(f"{title:>9}" for _key, title, _form in _COLUMNS)]
    for row in rows:
        cells = "".join(f"{form.format(row[key]):>9}" for key, _title, form in _COLUMNS)
        lines.append(f"{row['contestant']:12}{cells}" + (f"  {row['lost']} LOST" if row["lost"] else ""))
    return "\n".join(lines)


def ratios(real: Sequence[dict[str, Any]], simulated: Sequence[dict[str, Any]]) -> str:
    """Simulated / real, a line for each pair; what the rig saw nothing of is left out."""
    lines = ["simulated / real:"]
    for row, found in zip(real, simulated, strict=True):
        seen = row | {"seeder_sent": row.get("seeder_says") or row["seeder_sent"]}
        parts = [f"{key} {found[key] / seen[key]:.2f}" for key in _COMPARED if seen.get(key) and seen[key] > 0.05]
        lines.append(f"{row['contestant']}, {row['nodes']:.0f} nodes: {', '.join(parts)}")
    return "\n".join(lines)
