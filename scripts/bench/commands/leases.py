"""What the leases of N nodes cost a real coordinator, and whether it keeps up with them.

The coordinator is a process of its own, held to one core. This process holds the connections of all nodes, each from an
address of its own, on another core where there is one. The nodes send their demand as often as the coordinator says,
and at once when a leased piece has come, as nodes do. Nothing is downloaded: a seeder of --rate-mb is a queue that
delivers the leased pieces one after the other, and what it has delivered is at all nodes.

Figures: the seconds until all pieces were delivered, as a multiple of the seconds that the seeder needs for them; the
coordinator's CPU time as a share of that time, and for each message; its memory.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.leases"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/leases."""
    parser = command_line("leases", __doc__)
    add = parser.add_argument
    add("--nodes", type=int, nargs="+", default=[100, 1000, 3000], metavar="N", help="nodes (100, 1000, 3000)")
    add("--size-mb", type=int, default=16_000, help="size of the snapshot (16000)")
    add("--rate-mb", type=float, default=1030.0, help="MB/s that the seeder sends (1030)")
    add("--runs", type=int, default=1, help="runs for each number of nodes (1)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    options = parser.parse_args(arguments)
    if min(*options.nodes, options.size_mb, options.rate_mb, options.runs) < 1 or max(options.nodes) > 60_000:
        parser.error("--nodes are 1 to 60000; the other numbers start at 1")
    return options
