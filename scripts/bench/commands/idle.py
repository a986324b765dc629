"""A daemon at rest with many complete snapshots: the time until it serves them, and its cost while no peer takes any.

The snapshots are sparse stand-ins: their bytes are never read.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.idle"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/idle."""
    parser = command_line("idle", __doc__)
    add = parser.add_argument
    add("--snapshots", type=int, default=20, help="number of snapshots (default: 20)")
    add("--gb", type=float, default=10.0, help="size of each (default: 10)")
    add("--seconds", type=float, default=30.0, help="time of observation (default: 30)")
    add("--runs", type=int, default=3, help="runs, of which the medians are printed (default: 3)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
