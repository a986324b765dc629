"""Time until every node is ready, over the number of nodes: p2pmodel against aria2, libtorrent, qBittorrent and
`hf download`.

Runs scripts/bench/swarm, which needs root, for the given numbers of nodes. Writes the figures as JSON and draws them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.distribution.curve"
CONTESTANTS = ("ours", "aria2", "libtorrent", "qbittorrent", "hf")
ROOT = Path(__file__).resolve().parents[3]
RAW = ROOT / "docs/benchmarks/raw/time-to-ready.json"
PICTURE = ROOT / "docs/benchmarks/time-to-ready.png"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/curve."""
    parser = command_line("curve", __doc__)
    add = parser.add_argument
    add("--nodes", type=int, nargs="+", default=[1, 4, 8, 16, 32], metavar="N", help="numbers of nodes (1 4 8 16 32)")
    add("--size-mb", type=float, default=64.0, help="size of the snapshot (64)")
    add("--mbit", type=float, default=50.0, help="each link, up and down (50)")
    add("--runs", type=int, default=3, help="runs, of which the medians are drawn (3)")
    add("--congestion", default="reno", metavar="NAME", help="TCP congestion control in the rig (reno)")
    add("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    add("--from", type=Path, dest="source", metavar="FILE", help="draw these figures, measure nothing")
    add("--json", type=Path, default=RAW, metavar="FILE", help="figures to write (docs/benchmarks/raw)")
    add("--png", type=Path, default=PICTURE, metavar="FILE", help="picture to draw; the default one is the one of the "
        "documents, and the table beside it is updated, too")  # fmt: skip
    options = parser.parse_args(arguments)
    options.words = list(arguments)
    return options
