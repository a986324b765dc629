"""What a roll-out costs the launcher: real hosts with ssh servers in network namespaces, or simulated ones.

With --simulate the hosts are values of one process, with a real coordinator: it shows the time and memory of the
launcher itself. Otherwise a snapshot is brought onto --hosts machines, and once more: that run changes nothing. With
--load it is a tiny Qwen3-VL with a filler, and each host loads it and answers a prompt. With --faults five of eight
hosts have a fault each. Exits with 1 if something does not hold.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.bootstrap"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/bootstrap."""
    parser = command_line("bootstrap", __doc__)
    add = parser.add_argument
    add("--hosts", type=int, default=8, help="machines in namespaces (default: 8)")
    add("--size-mb", type=int, default=256, help="size of the snapshot in MiB (default: 256)")
    add("--mbit", type=float, default=0.0, help="rate of each host's link, which settings declare (default: no limit)")
    add(
        "--mirror-mbit",
        type=float,
        default=0.0,
        help="rate of the mirror's link, for all hosts together (default: no limit)",
    )
    add("--seeders", type=int, default=1, help="--seeders of the bootstrap (default: 1)")
    add("--simulate", type=int, default=0, metavar="N", help="N simulated hosts instead")
    add("--load", action="store_true", help="load the model on each host, up to its first token")
    add("--faults", action="store_true", help="eight hosts, five of them with a fault, then those five once mended")
    add("--timeout", default="120s", help="--timeout of the bootstrap with --faults (default: 120s)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
