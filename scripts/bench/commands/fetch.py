"""The same snapshot, on one machine, by each of

sha256    a bare sha256 pass over the snapshot's page-cached files, on every core: nothing verified costs less
fetch     `p2pmodel fetch` from one seeder through the swarm
hf        `hf download` from the mirror that the seeder was filled from (checks sizes, no hashes)
seed      `p2pmodel seed --once` from that mirror: mirror, verify, hash, build the torrent

in turn, `--runs` times after one round that is not counted. Seconds are wall-clock, from the start of a process to
its end; ratios are medians of the rounds' own ratios. Every command fills an empty cache on the same file system.
The cache is deleted before the next command.

Memory is read from /proc/PID/status every 20 ms. `anon` is the highest RssAnon: what the process itself allocated.
`rss` is the highest VmRSS, which counts mapped files (shared libraries) too. Neither counts page cache: that holds
the written files, belongs to the kernel, and is released when the memory is needed.

Everything listens on 127.0.0.x and is deleted at the end.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import add_output, command_line

BENCHMARK = "scripts.bench.measurements.fetch"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/fetch."""
    parser = command_line("fetch", __doc__)
    add = parser.add_argument
    add("--size-mib", type=int, default=2048, help="size of all shards of the snapshot (default: 2048)")
    add("--files", type=int, default=4, help="number of shards (default: 4)")
    add("--runs", type=int, default=3, help="rounds that are counted (default: 3)")
    add("--only", metavar="NAMES", help="contestants, comma separated (default: all)")
    add_output(add)
    return parser.parse_args(arguments)
