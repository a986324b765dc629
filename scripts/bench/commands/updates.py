"""The bytes of an update: what a fetch of a new revision downloads of what changed.

For each kind of change a node has the old revision in its cache, and a seeder has the new one. Compared are, for those
files, the new bytes by Xet (hf_xet, locally), and the patches of `zstd --patch-from`. The figures are counts of
bytes; they do not depend on the machine.

With --kills the update of one shard and some tensors is killed (SIGKILL) at random moments instead, each time in a
cache that has the old revision only. After each kill the name must lead to a whole revision, the old one must be whole,
and the next run must complete the update.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import add_output, command_line

BENCHMARK = "scripts.bench.measurements.updates"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/update."""
    parser = command_line("update", __doc__)
    add = parser.add_argument
    add("--shards", type=int, default=5, help="number of shards (default: 5)")
    add("--tensors", type=int, default=20, help="tensors of each shard (default: 20)")
    add("--mib", type=int, default=4, help="size of each tensor (default: 4)")
    add("--kills", type=int, default=0, metavar="N", help="kill N updates at random moments, and measure nothing")
    add("--seed", type=int, default=1, metavar="N", help="seed of the moments (default: 1)")
    add_output(add, folder="files")
    return parser.parse_args(arguments)
