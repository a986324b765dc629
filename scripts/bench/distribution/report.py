"""What the runs of one contestant on one cluster come to: medians, as multiples of the bound, and a table of them."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

_COLUMNS = (
    ("nodes", "nodes", "{:.0f}"),
    ("bound", "T* s", "{:.2f}"),
    ("p50", "p50", "{:.2f}"),
    ("p95", "p95", "{:.2f}"),
    ("last", "last", "{:.2f}"),
    ("last_from_byte", "1st byte", "{:.2f}"),
    ("last_from_start", "start", "{:.2f}"),
    ("seeder_sent", "seeder", "{:.2f}"),
    ("seeder_says", "payload", "{:.2f}"),
    ("mirror_sent", "mirror", "{:.2f}"),
    ("mirror_says", "payload", "{:.2f}"),
    ("received", "down", "{:.3f}"),
    ("received_most", "most", "{:.3f}"),
    ("cpu_seconds_per_gb", "CPU s/GB", "{:.1f}"),
    ("memory_mib", "MiB", "{:.0f}"),
    ("machine_busy", "busy", "{:.0%}"),
)
LEGEND = """\
p50, p95, last: from the opening of the gate until half, 95 % and all of the nodes were complete, in T*
1st byte, start: the last node, counted from the source's first 64 KiB, and from the first process's start, in T*
seeder, mirror: bytes they sent on their links / S, payload: of content, as they say, 0 if nothing
down, most: bytes on a node's link until it was complete / S, mean and most
CPU: of the nodes, from the gate on, until the last was complete; MiB: the largest node; busy: this machine's cores"""


def summary(runs: Sequence[dict[str, Any]], bound: float) -> dict[str, Any]:
    """Medians over `runs`; times in multiples of `bound` seconds. A run that nobody finished counts as infinite."""
    rows = [_row(run, bound) for run in runs]
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return medians | {"bound": bound, "lost": sum(_lost(run) for run in runs), "runs": list(runs)}


def _lost(run: dict[str, Any]) -> int:
    return len(run["failures"]) + int(run["unfinished"])


def _row(run: dict[str, Any], bound: float) -> dict[str, float]:
    ready = [*run["ready"], *[math.inf] * _lost(run)]
    last = ready[-1]
    carried = (
        "nodes",
        "seeder_sent",
        "seeder_says",
        "mirror_sent",
        "mirror_says",
        "received",
        "received_most",
        "cpu_seconds_per_gb",
    )
    return {key: run[key] for key in (*carried, "machine_busy", "cpu_start_seconds", "start_seconds", "quick_last")} | {
        "last_seconds": last,
        "p50": _quantile(ready, 0.5) / bound,
        "p95": _quantile(ready, 0.95) / bound,
        "last": last / bound,
        "last_from_byte": (last - run["first_byte_seconds"]) / bound,
        "last_from_start": (last + run["start_seconds"]) / bound,
        "memory_mib": run["memory"] / (1 << 20),
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One line for each (contestant, summary)."""
    lines = [f"{'':12}" + "".join(f"{title:>9}" for _key, title, _form in _COLUMNS)]
    for name, row in rows:
        cells = "".join(f"{form.format(row[key]):>9}" for key, _title, form in _COLUMNS)
        shown = f"{name} mixed" if row.get("mixed") else name
        lines.append(f"{shown:12}{cells}" + (f"  {row['lost']} LOST" if row["lost"] else ""))
    return "\n".join(lines)


def growth(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of each contestant whose nodes were all alike, with several numbers of them: how many times longer the last node
    of the most took than that of the fewest."""
    found = []
    for name in dict.fromkeys(name for name, _row in rows):
        ours = sorted((row for each, row in rows if each == name and not row["mixed"]), key=lambda row: row["nodes"])
        if len(ours) > 1:
            few, many = ours[0], ours[-1]
            ratio = many["last_seconds"] / few["last_seconds"]
            found.append({"contestant": name, "few": few["nodes"], "many": many["nodes"], "ratio": ratio})
    return found


def held_up(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of each contestant beside slow nodes: how many times longer its quick nodes took than as many nodes all of which
    are quick."""
    alike = {(name, row["nodes"]): row["last_seconds"] for name, row in rows if not row["mixed"]}
    mixed = ((name, row["nodes"], row["quick_last"]) for name, row in rows if row["mixed"])
    return [{"contestant": name, "nodes": n, "ratio": last / alike[name, n]} for name, n, last in mixed]


def comparisons(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """What `growth` and `held_up` say, a line each."""
    grown = "{contestant}: the last of {many:.0f} nodes after {ratio:.3f} times what the last of {few:.0f} takes"
    slowed = (
        "{contestant}, {nodes:.0f} nodes: the quick ones after {ratio:.3f} times what it takes with none that is slow"
    )
    return [grown.format(**each) for each in growth(rows)] + [slowed.format(**each) for each in held_up(rows)]


def complaints(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """What went wrong, and what makes a figure doubtful, a line each."""
    lines = []
    for name, row in rows:
        where = f"{name}, {row['nodes']:.0f} nodes"
        for run in row["runs"]:
            lines += [f"{where}: {failure}" for failure in run["failures"]]
            if run["unfinished"]:
                lines.append(f"{where}: {run['unfinished']} nodes were not complete in time")
            if run["joined"] < run["nodes"]:
                lines.append(f"{where}: the gate opened for {run['joined']} of {run['nodes']}: take 'start' with care")
        if any(run["neighbours"] for run in row["runs"]):
            lines.append(f"{where}: another measurement ran at the same time (--alone waits until there is none)")
        if row["machine_busy"] > 0.9:
            lines.append(f"{where}: this machine was {row['machine_busy']:.0%} busy; the links may not be what bounds")
    return lines
