"""One file from mirrors behind links of 8, 36 and 87 MB/s scaled down, by

ours     `p2pmodel fetch` from all mirrors at once, the quickest first, with no earlier figures about them
solo N   `p2pmodel fetch` from mirror N alone
distant  like solo N of the quickest, 200 ms away
hf       `hf download` from the quickest mirror
aria2c N `aria2c -x16 -sN` with the URLs of all mirrors

in turn, `--runs` times, each process with an empty cache. Ours verifies (sha256), the others do not. Seconds are
wall-clock, from start to end of a process. Rates are payload bytes over these seconds, less the seconds that the same
program takes for a file of 1 kB: a slow start is not a slow link. Solo files are smaller: each takes about `--seconds`.

As root each mirror and the client are network namespaces with `tc tbf` on the links. Otherwise the mirrors limit
themselves, on loopback. Everything is deleted at the end.

`--toxic N` instead: N runs over three mirrors in this process, one of which has a fault drawn at random.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import add_output, command_line

BENCHMARK = "scripts.bench.measurements.mirrors"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/mirrors."""
    parser = command_line("mirrors", __doc__)
    add = parser.add_argument
    add("--scale", type=float, default=8.0, help="divisor of the links of 8, 36 and 87 MB/s (default: 8)")
    add("--seconds", type=float, default=20.0, help="duration of a transfer (default: 20)")
    add("--runs", type=int, default=3, help="rounds (default: 3)")
    add("--toxic", type=int, metavar="N", help="N runs with a toxic mirror instead")
    add("--seed", type=int, default=1, help="seed of the random faults of --toxic (default: 1)")
    add_output(add)
    return parser.parse_args(arguments)
