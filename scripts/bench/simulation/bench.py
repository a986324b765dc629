"""The benchmark scripts/bench/simulate: the swarm benchmark as a simulation."""

import argparse
import json
import math
import sys
from typing import Any

from scripts.bench.distribution.kills import Kill
from scripts.bench.rigs.reports import write_json
from scripts.bench.simulation import rig
from scripts.bench.simulation.case import NODE_CEILING, SOURCE_CEILING, Case, links_of
from scripts.bench.simulation.report import LEGEND, ratios, simulation_table, summary
from scripts.bench.simulation.run import SimulatedRun


def _cases(options: argparse.Namespace) -> list[Case]:
    seeder, mirror = (mbit or options.mbit for mbit in (options.seeder_mbit, options.mirror_mbit))
    of_source, of_node = (SOURCE_CEILING, NODE_CEILING) if options.cpu else (math.inf, math.inf)
    link = min(options.mbit * 1e6 / 8, of_node)
    return [
        Case(
            size=int(options.size_mb * 1e6),
            seeder=min(seeder * 1e6 / 8, of_source),
            mirror=min(mirror * 1e6 / 8, of_source),
            links=links_of(count, link, link, mixed=options.mixed),
            zones=options.zones,
            kill=Kill.parse(options.kill, options.kill_at, None) if options.kill else None,
            leases=not options.without_leases,
            seed=options.seed,
            coarser=options.coarser,
        )
        for count in options.nodes
    ]


def _simulate(name: str, case: Case) -> dict[str, Any]:
    run = SimulatedRun(case)
    if (coarser := run.piece_length // case.piece_length) > 1:
        print(f"{case.nodes} nodes: pieces {coarser} times as long as the product's, so the ends are later", flush=True)
    found = summary(run.run(), case.bound) | {"contestant": name, "coarser": coarser}
    print(f"  {name}, {case.nodes} nodes: last {found['last']:.2f} T*, {found['last'] * case.bound:.2f} s", flush=True)
    return found


def main(options: argparse.Namespace) -> None:
    """Simulate, print, and write the figures to --json."""
    report: dict[str, Any] = {"flags": {key: str(value) for key, value in vars(options).items()}}
    if options.against:
        try:
            real = json.loads(options.against.read_text())
        except (OSError, ValueError) as error:
            sys.exit(f"scripts/bench/simulate: cannot read {options.against}: {error}")
        pairs = rig.cases(real, options.seed)
        report["results"] = [_simulate(row["contestant"], case) for row, case in pairs]
        compared = ratios([row for row, _ in pairs], report["results"])
        print(simulation_table(report["results"]), LEGEND, compared, sep="\n")
    else:
        name = "stock" if options.without_leases else "ours"
        report["results"] = [_simulate(name, case) for case in _cases(options)]
        print(simulation_table(report["results"]), LEGEND, sep="\n")
    write_json(options.json, report)
