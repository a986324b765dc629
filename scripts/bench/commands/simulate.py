"""The benchmark scripts/bench/swarm as a simulation: N nodes and a snapshot of S bytes.

Decisions are those of the real code: the leases (the pieces that each node pulls from the seeder), the tracker (the
peers that it returns) and the piece length. Simulated are

- the links: each flow gets its share at both ends;
- libtorrent: every peer is unchoked, the rarest piece among the neighbours comes first, requests reach three seconds
  ahead, and a piece is passed on once it is whole and checked;
- the seconds that messages, checks and dialling take.

Time advances in steps of a fraction of a piece. Not simulated: disks, processors (but see --cpu), losses, the start of
TCP, the death of the coordinator, restarts.

Times are multiples of T*, the physical minimum. A copy is S bytes.

--against reads the file that `scripts/bench/swarm --json` wrote, simulates the same cases over links of the goodput
measured there, and prints simulated / real.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line
from scripts.bench.commands.swarm import SLOWER
from scripts.bench.distribution.kills import Kill

BENCHMARK = "scripts.bench.simulation.bench"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/simulate."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        kill = Kill.parse(options.kill or "", options.kill_at, None)
    except ValueError as error:
        parser.error(f"--kill: {error}")
    if set(kill.roles) - {"seeder"}:
        parser.error("--kill: the simulation can kill the seeder and peers:SHARE only")
    if min(options.nodes) < 1 or options.zones < 1 or options.coarser < 1:
        parser.error("--nodes, --zones and --coarser start at 1")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = command_line("simulate", __doc__)
    add = parser.add_argument
    add("--nodes", type=int, nargs="+", default=[8], metavar="N", help="numbers of nodes, each simulated (8)")
    add("--size-mb", type=float, default=256.0, help="size of the snapshot (256)")
    add("--mbit", type=float, default=100.0, help="each node's link, up and down; bytes of content, without loss (100)")
    add("--seeder-mbit", type=float, help="the seeder's link (default: a node's)")
    add("--mirror-mbit", type=float, help="the mirror's link (default: a node's); used when the seeder is dead")
    add("--mixed", action="store_true", help=f"a quarter of the nodes has a link {SLOWER} times slower")
    add("--zones", type=int, default=1, metavar="K", help="nodes are in K zones, the seeder in one of them (1)")
    add("--kill", metavar="ROLES", help="seeder, peers:SHARE, joined by commas")
    add("--kill-at", type=float, default=0.5, metavar="SHARE", help="time of --kill, as a share of all bytes wanted")
    add(
        "--cpu",
        action="store_true",
        help="no node or source is quicker than its busiest thread in docs/benchmarks/cpu.md",
    )
    add("--without-leases", action="store_true", help="the seeder is an ordinary peer, as with stock libtorrent")
    add("--coarser", type=int, default=1, metavar="TIMES", help="multiple of the product's piece length (1)")
    add("--seed", type=int, default=0, help="seed of all random choices (0)")
    add("--against", type=Path, metavar="RIG.json", help="the cases of this file instead, and simulated / real")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser
