"""A small cluster that is attacked: the time of honest fetches against the undisturbed time, and what attackers get.

Honest: a mirror, a coordinator with tokens, a seeder, nodes. Hostile: forty leaseholders with the member's token, a
peer with wrong pieces, a mirror with endless metadata and wrong bytes, idle connections, clients with wrong tokens.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.attack"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/attack."""
    parser = command_line("attack", __doc__)
    add = parser.add_argument
    add("--nodes", type=int, default=3, help="honest nodes that fetch at the same time (default: 3)")
    add("--size-mb", type=int, default=48, help="size of the snapshot (default: 48)")
    add("--mb-s", type=float, default=4.0, help="rate of the seeder and of the mirror, MB/s (default: 4)")
    add("--runs", type=int, default=3, help="runs of each kind, of which the medians are printed (default: 3)")
    add("--same-address", action="store_true", help="the leaseholders connect from the honest nodes' address")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
