"""The figures of a daemon against the kernel's: bytes, rates, time left and the limit of a mixed run.

Two transfers share one limit. One comes from a mirror; the other from the HTTP source of a seeder and from peers. What
the daemon reports is compared with the bytes on its network interface. Needs root.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.figures"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/figures."""
    parser = command_line("figures", __doc__)
    add = parser.add_argument
    add("--mb", type=float, default=100.0, help="size of each of the two snapshots (default: 100)")
    add("--limit", type=float, default=8.0, help="download limit, MB/s (default: 8)")
    add(
        "--mix",
        action="append",
        choices=("both", "schedule", "mirror", "mirrors", "swarm"),
        help="sources: both kinds (default), both with the limit in a schedule, one mirror, two, the swarm; repeatable",
    )
    add("--tolerance", type=float, default=5.0, help="difference in percent that is a failure (default: 5)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
