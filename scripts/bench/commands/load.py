"""A model of Qwen3-VL's shape, fetched from one seeder at a limited rate, by each of

serial      `p2pmodel fetch`, then `from_pretrained` of the complete snapshot
overlapped  `fetch --load`: the tensors are loaded while the files arrive

Both in one process that has imported everything before the clock starts. The weights are converted to 32 bits: else
from_pretrained only maps the files on a CPU, and the time of a load is nothing.

The last pair of runs has a device that takes tensors at the rate of the link, in place of the CPU: download and load
take the same time, which is where overlapping saves most. That device is emulated: its copies wait.

`tail` is the time from the last verified file to the loaded model, `last byte` that from the last byte that arrived: it
also has the last hashes, which no load can come before.

Seconds are wall-clock. `memory` is the highest anonymous memory of the process above that at the start and above that
of the loaded weights; page cache does not count.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import add_output, command_line

BENCHMARK = "scripts.bench.measurements.load"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/load."""
    parser = command_line("load", __doc__)
    add = parser.add_argument
    add("--layers", type=int, default=20, help="layers of 100 MB each (default: 20)")
    add("--rates", default="30,60,120", help="upload limits of the seeder in MB/s (default: 30,60,120)")
    add("--device-rate", type=float, default=60.0, help="MB/s of the emulated device and its link (default: 60)")
    add("--runs", type=int, default=1, help="runs of each, medians are printed (default: 1)")
    add_output(add)
    return parser.parse_args(arguments)
