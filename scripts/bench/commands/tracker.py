"""The announces per second that `p2pmodel coordinator` answers on one core, and its memory per listed peer.

The tracker is a process of its own, held to one core. This process announces as libtorrent does, over keep-alive
connections on loopback, from another core where there is one. First every peer joins; then all announce again, some as
downloaders with progress and some as seeders. The figure `a second of the core` counts the tracker's own CPU time,
which other work on the machine changes little.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.tracker"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/tracker."""
    parser = command_line("tracker", __doc__)
    add = parser.add_argument
    add("--peers", type=int, default=10_000, help="peers that join (default: 10000)")
    add("--announces", type=int, default=20_000, help="announces after every peer has joined (default: 20000)")
    add("--connections", type=int, default=16, help="connections at once (default: 16)")
    add("--zones", type=int, default=1, help="zones of the peers (default: 1)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
