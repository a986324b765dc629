"""The cost of the hashing pass for BitTorrent v2 over a bare parallel sha256 pass of the same files.

Both read the same page-cached files on the same number of threads, in turn; the ratio is the median of the runs' own
ratios. The last line is one JSON object.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import add_output, command_line

BENCHMARK = "scripts.bench.measurements.hashing"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/hash."""
    parser = command_line("hash", __doc__)
    add = parser.add_argument
    add("--files", type=int, default=4, help="number of files (default: 4)")
    add("--mib", type=int, default=256, help="size of each file (default: 256)")
    add("--runs", type=int, default=5, help="runs (default: 5)")
    add("--jobs", type=int, help="threads (default: as p2pmodel chooses)")
    add_output(add, folder="files")
    return parser.parse_args(arguments)
