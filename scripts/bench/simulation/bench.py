"""The simulation behind scripts/bench/simulate: N nodes, a snapshot of S bytes, as in scripts/bench/swarm.

The product's own code decides: `coordinator/leases` who pulls which piece from the seeder, `coordinator/announces` who
is told of whom, `core/layout` how long a piece is. Simulated are the links (each flow gets its share at both ends),
libtorrent (everybody unchoked, rarest first among neighbours, requests three seconds ahead, pieces passed on once whole
and checked) and the seconds that words, checks and dialling take. Time goes in steps of a part of a piece.

Times are multiples of T*, as there: the least that physics allows. A copy is S bytes. What is not simulated: disks and
processors, losses, TCP's start, deaths of the coordinator, restarts.

--against reads what `scripts/bench/swarm --json` wrote, simulates the same, over links of the goodput measured there,
and gives simulated / real.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from scripts.bench.distribution.kills import Kill
from scripts.bench.simulation import rig
from scripts.bench.simulation.case import SLOWER, Case, links_of
from scripts.bench.simulation.report import LEGEND, ratios, summary, table
from scripts.bench.simulation.run import Run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--nodes", type=int, nargs="+", default=[8], metavar="N")
    add("--size-mb", type=float, default=256.0, help="of the snapshot")
    add("--mbit", type=float, default=100.0, help="each node's link, up and down; bytes of content, nothing is lost")
    add("--seeder-mbit", type=float, help="the seeder's link (default: a node's)")
    add("--mirror-mbit", type=float, help="the mirror's link (default: a node's); asked when the seeder is dead")
    add("--mixed", action="store_true", help=f"a quarter of the nodes has a link {SLOWER} times slower")
    add("--zones", type=int, default=1, metavar="K", help="nodes are in K zones, the seeder in one of them")
    add("--kill", metavar="WHO", help="seeder, peers:SHARE, joined by commas")
    add("--kill-at", type=float, default=0.5, metavar="SHARE", help="of all bytes wanted, when they die")
    add("--without-leases", action="store_true", help="the seeder is a peer like others, as stock libtorrent has it")
    add("--coarser", type=int, default=1, metavar="TIMES", help="pieces this much longer than the product's")
    add("--seed", type=int, default=0, help="of all that is random")
    add("--against", type=Path, metavar="RIG.json", help="the cases of this file instead, and simulated / real")
    add("--json", type=Path, metavar="FILE", help="write every number here")
    return parser


def _cases(flags: argparse.Namespace) -> list[Case]:
    seeder, mirror = (mbit or flags.mbit for mbit in (flags.seeder_mbit, flags.mirror_mbit))
    return [
        Case(
            size=int(flags.size_mb * 1e6),
            seeder=seeder * 1e6 / 8,
            mirror=mirror * 1e6 / 8,
            links=links_of(count, flags.mbit * 1e6 / 8, flags.mbit * 1e6 / 8, mixed=flags.mixed),
            zones=flags.zones,
            kill=Kill.parse(flags.kill, flags.kill_at, None) if flags.kill else None,
            leases=not flags.without_leases,
            seed=flags.seed,
            coarser=flags.coarser,
        )
        for count in flags.nodes
    ]


def _simulate(name: str, case: Case) -> dict[str, Any]:
    run = Run(case)
    if (coarser := run.piece_length // case.piece_length) > 1:
        print(f"{case.nodes} nodes: pieces {coarser} times as long as the product's, so the ends are later", flush=True)
    found = summary(run.run(), case.bound) | {"contestant": name, "coarser": coarser}
    print(f"  {name}, {case.nodes} nodes: last {found['last']:.2f} T*", flush=True)
    return found


def _flags() -> argparse.Namespace:
    parser = _parser()
    flags = parser.parse_args()
    try:
        kill = Kill.parse(flags.kill or "", flags.kill_at, None)
    except ValueError as error:
        parser.error(f"--kill: {error}")
    if set(kill.roles) - {"seeder"}:
        parser.error("--kill: only the seeder and peers:SHARE die here")
    if min(flags.nodes) < 1 or flags.zones < 1 or flags.coarser < 1:
        parser.error("--nodes, --zones and --coarser start at 1")
    return flags


def main() -> None:
    """Simulate, print, and write the numbers to --json."""
    flags = _flags()
    report: dict[str, Any] = {"flags": {key: str(value) for key, value in vars(flags).items()}}
    if flags.against:
        try:
            real = json.loads(flags.against.read_text())
        except (OSError, ValueError) as error:
            sys.exit(f"scripts/bench/simulate: cannot read {flags.against}: {error}")
        pairs = rig.cases(real, flags.seed)
        report["results"] = [_simulate(row["contestant"], case) for row, case in pairs]
        print(table(report["results"]), LEGEND, ratios([row for row, _ in pairs], report["results"]), sep="\n")
    else:
        name = "stock" if flags.without_leases else "ours"
        report["results"] = [_simulate(name, case) for case in _cases(flags)]
        print(table(report["results"]), LEGEND, sep="\n")
    if flags.json:
        flags.json.write_text(json.dumps(_finite(report), indent=1) + "\n")


def _finite(value: Any) -> Any:
    """`value` with None for what never came, for JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if value == math.inf else value


if __name__ == "__main__":
    main()
