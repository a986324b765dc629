"""CPU-seconds a GB: one seeder and one fetcher on loopback, with all files on a RAM disk.

fetch       `p2pmodel fetch` from one `p2pmodel seed`: large files whole, over HTTP, since it is alone
before      the same pair of another checkout, with --before
swarm       the same pair in the swarm, as where several nodes download
signed      the same pair with `trust.file_hashes = "unless_signed"` and a signature: no second hash of each file
libtorrent  a plain libtorrent client from another one, with its default settings, over TCP alone
hf          `hf download` from the mirror that the seeder was filled from (checks sizes, no hashes)
aria2       `aria2c` from the same mirror, with the sha256 of every file
http        `curl` from the same mirror, and
https       from one with a certificate: for what the mirror spends, the figures of the sender
sha256      a bare sha256 pass over the files in page cache

in turn, `--runs` times after one round that is not counted. Each downloads the whole snapshot into an empty folder, and
before that one small file alone. The small download is the start-up (start, connect, end); it is taken off the whole
one, so that the seconds a GB do not depend on the size. The same is done at the sending side. Ratios are medians of the
rounds' own ratios.

The threads of `p2pmodel` are read from /proc every 20 ms. `busiest` is the most of one thread: the event loop and the
engine's network thread are one each, so 1 / busiest of these is the ceiling in GB/s of one node on enough cores. With
`--engines N` there are N network threads in the swarm, of which the busiest counts.

Everything listens on 127.0.0.x and is deleted at the end. Without aria2c or curl their lines are left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.processor.bench"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/cpu."""
    parser = command_line("cpu", __doc__)
    add = parser.add_argument
    add("--size-mib", type=int, default=2048, help="size of all shards of the snapshot (default: 2048)")
    add("--files", type=int, default=4, help="number of shards (default: 4)")
    add("--runs", type=int, default=5, help="rounds that are counted (default: 5)")
    add("--engines", type=int, metavar="N", help="engines of the fetcher and the seeder (default: as they choose)")
    add(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="another checkout, to run its seeder and fetcher in turn with ours",
    )
    add("--only", metavar="NAMES", help="contestants, comma separated (default: all)")
    add("--dir", type=Path, default=Path("/dev/shm"), help="folder for all files (default: /dev/shm)")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
