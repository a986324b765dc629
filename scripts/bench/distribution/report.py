"""The runs of one contestant on one cluster as medians and multiples of the bound, and as a table."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scripts.bench.rigs.reports import quantile, table

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
    ("crossed", "crossed", "{:.3f}"),
    ("received", "down", "{:.3f}"),
    ("received_most", "most", "{:.3f}"),
    ("cpu_seconds_per_gb", "CPU s/GB", "{:.1f}"),
    ("memory_mib", "MiB", "{:.0f}"),
    ("machine_busy", "busy", "{:.0%}"),
)
LEGEND = """\
p50, p95, last: from the opening of the gate until half, 95 % and all of the nodes were complete, in T*
1st byte, start: the last node, counted from the source's first 64 KiB, and from the first process's start, in T*
seeder, mirror: bytes they sent on their links / S; payload: of content, by their own reports, 0 without one
crossed: bytes on the wire into the zone that took the most, headers included / S; 0 without zones
down, most: bytes on a node's link until it was complete / S, mean and most
CPU: of the nodes, from the gate on, until the last was complete; MiB: the largest node; busy: this machine's cores"""


def summary(runs: Sequence[dict[str, Any]], bound: float) -> dict[str, Any]:
    """Medians over `runs`; times in multiples of `bound` seconds. A node that did not finish counts as infinite."""
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
        "crossed",
        "received",
        "received_most",
        "cpu_seconds_per_gb",
    )
    return {key: run[key] for key in (*carried, "machine_busy", "cpu_start_seconds", "start_seconds", "quick_last")} | {
        "last_seconds": last,
        "p50": quantile(ready, 0.5) / bound,
        "p95": quantile(ready, 0.95) / bound,
        "last": last / bound,
        "last_from_byte": (last - run["first_byte_seconds"]) / bound,
        "last_from_start": (last + run["start_seconds"]) / bound,
        "memory_mib": run["memory"] / (1 << 20),
    }


def swarm_table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """A line for each (contestant, summary)."""
    return table(_COLUMNS, [(f"{name} mixed" if row.get("mixed") else name, row) for name, row in rows])


def growth(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The growth with the number of nodes, for each contestant with nodes that are all alike.

    `ratio`: the time of the last node with the most nodes over that with the fewest.
    """
    found = []
    for name in dict.fromkeys(name for name, _row in rows):
        own = sorted((row for each, row in rows if each == name and not row["mixed"]), key=lambda row: row["nodes"])
        if len(own) > 1:
            few, many = own[0], own[-1]
            ratio = many["last_seconds"] / few["last_seconds"]
            found.append({"contestant": name, "few": few["nodes"], "many": many["nodes"], "ratio": ratio})
    return found


def held_up(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The delay that slow nodes cause to the quick ones, for each contestant.

    `ratio`: the time of the quick nodes over that of as many nodes without slow ones.
    """
    alike = {(name, row["nodes"]): row["last_seconds"] for name, row in rows if not row["mixed"]}
    mixed = ((name, row["nodes"], row["quick_last"]) for name, row in rows if row["mixed"])
    return [{"contestant": name, "nodes": n, "ratio": last / alike[name, n]} for name, n, last in mixed]


def delayed_by_loads(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The delay that the order of loads causes on all nodes: the time of the last node that asks for the next tensors
    over that of the last one that does not."""
    plain = {(row["nodes"], row["mixed"]): row["last_seconds"] for name, row in rows if name == "ours"}
    loading = [(row["nodes"], row["mixed"], row["last_seconds"]) for name, row in rows if name == "loading"]
    return [
        {"nodes": nodes, "mixed": mixed, "ratio": last / plain[nodes, mixed]}
        for nodes, mixed, last in loading
        if (nodes, mixed) in plain
    ]


def comparisons(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """The figures of `growth`, `held_up` and `delayed_by_loads`, a line each."""
    grown = "{contestant}: the last of {many:.0f} nodes takes {ratio:.3f} times as long as the last of {few:.0f}"
    slowed = "{contestant}, {nodes:.0f} nodes: the quick ones take {ratio:.3f} times as long as without slow ones"
    delayed = "loads on all {nodes:.0f} nodes: the last one takes {ratio:.3f} times as long as without"
    return [
        *(grown.format(**each) for each in growth(rows)),
        *(slowed.format(**each) for each in held_up(rows)),
        *(delayed.format(**each) for each in delayed_by_loads(rows)),
    ]


def warnings(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Failures, and reasons to doubt a figure, a line each."""
    lines = []
    for name, row in rows:
        where = f"{name}, {row['nodes']:.0f} nodes"
        for run in row["runs"]:
            lines += [f"{where}: {failure}" for failure in run["failures"]]
            if run["unfinished"]:
                lines.append(f"{where}: {run['unfinished']} nodes were not complete in time")
            if run["joined"] < run["nodes"]:
                lines.append(f"{where}: the gate opened for {run['joined']} of {run['nodes']} nodes: doubt 'start'")
        if any(run["neighbours"] for run in row["runs"]):
            lines.append(f"{where}: another measurement ran at the same time (--alone waits for its end)")
        if row["machine_busy"] > 0.9:
            lines.append(f"{where}: this machine was {row['machine_busy']:.0%} busy; the links may not be the limit")
    return lines
