"""What a roll-out of many nodes costs `p2pmodel coordinator`: CPU time, and memory.

The coordinator is a process of its own with a state folder. This process is all nodes: each holds a connection for
leases, over which its numbers go once a second, and posts its phases as a node does. The download of each node takes
the given time; then it reports that its files are ready. One client watches the events meanwhile. The same run without
a roll-out is the figure to compare with: its leases cost the same.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.rollout"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/rollout."""
    parser = command_line("rollout", __doc__)
    add = parser.add_argument
    add("--nodes", type=int, default=1000, help="nodes (default: 1000)")
    add("--seconds", type=float, default=30.0, help="duration of each download (default: 30)")
    add("--spread", type=float, default=10.0, help="seconds over which the nodes begin (default: 10)")
    add("--pieces", type=int, default=2000, help="pieces of the snapshot (default: 2000)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
