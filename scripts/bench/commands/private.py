"""A private swarm, and every host that should get nothing of it: bytes at the sender, on the wire and at the receiver.

Hosts are network namespaces on one bridge: a seeder, entitled nodes, and intruders with the .torrent, each with another
fault in its certificate, address or protocol. One node is revoked while it downloads. At last the same snapshot is
fetched from a public and from a private swarm.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.private"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/private."""
    parser = command_line("private", __doc__)
    add = parser.add_argument
    add("--size-mb", type=int, default=64, help="size of the snapshot (default: 64)")
    add("--seconds", type=float, default=6.0, help="seconds that each intruder tries (default: 6)")
    add("--runs", type=int, default=3, help="fetches from the public and the private swarm (default: 3)")
    add(
        "--nodes",
        type=int,
        default=4,
        help="nodes that fetch at once, for the copies that the seeder sends (default: 4)",
    )
    add("--upload", default="12MB", help="upload limit of the seeder for that, bytes/s (default: 12MB)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
