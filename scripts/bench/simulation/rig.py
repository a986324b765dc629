"""The cases that scripts/bench/swarm measured, from the file it wrote."""

from typing import Any

from scripts.bench.distribution.kills import Kill
from scripts.bench.simulation.case import Case, links_of

STOCK = ("libtorrent", "qbittorrent")
"""Contestants that are simulated as nodes without leases."""


def cases(report: dict[str, Any], seed: int) -> list[tuple[dict[str, Any], Case]]:
    """Each row that can be simulated, and its case.

    The rig's goodput stands for the link. The slow nodes get a fraction of the goodput of the quick ones.
    """
    rows = [row for row in report["results"] if row["contestant"] in ("ours", *STOCK)]
    return [(row, _case(report, row, seed)) for row in rows]


def _case(report: dict[str, Any], row: dict[str, Any], seed: int) -> Case:
    flags, good = report["flags"], row["goodput"]
    kill = None
    if (killed := flags.get("kill", "None")) != "None":
        simulated = ",".join(part for part in killed.split(",") if part == "seeder" or part.startswith("peers"))
        kill = Kill.parse(simulated, float(flags["kill_at"]), None)
    return Case(
        size=report["size"],
        seeder=good["origin"],
        mirror=float(flags["mirror_mbit"]) / float(flags["seeder_mbit"]) * good["origin"],
        links=links_of(int(row["nodes"]), good["up"], good["down"], mixed=flags["mixed"] == "True"),
        kill=kill,
        leases=row["contestant"] not in STOCK,
        seed=seed,
    )
