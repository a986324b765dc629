"""`hf download` on a node, each time into an empty cache,

direct   from a mirror
shared   through the endpoint of the node's daemon, with an empty cache that daemon and client share
apart    the same, with a cache of the client's own

in turn, `--runs` times, on each of these rigs:

link     no other node has the snapshot, and the mirror's link carries `--mbit`
open     the same, with no limit on the link
warm     the daemon of another node has it, from an earlier request. Nodes reach each other at `--cluster-mbit`, and the
         mirror's link carries `--hub-mbit`

All three have a coordinator, unless `--no-coordinator`: then there is no `warm`. Where no node has the snapshot each
download gets a new coordinator, since the nodes publish the torrent there. Seconds are wall-clock, from the start of
`hf` to its end; daemons start before. Ratios are of each round's own times: `ours / direct` where no node has the
snapshot, `direct / ours` on `warm`; medians. `copies` is the traffic from the mirror's link to the nodes as a multiple
of the snapshot, headers included.

Needs root: hosts are network namespaces with `tc tbf` on their links. Everything is deleted at the end.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import MACHINE_TURN, add_output, command_line

BENCHMARK = "scripts.bench.measurements.endpoint"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/endpoint."""
    parser = command_line("endpoint", __doc__)
    add = parser.add_argument
    add("--rigs", nargs="+", choices=("link", "open", "warm"), default=["link", "open", "warm"])
    add("--size-mb", type=float, default=256.0, help="size of the snapshot, shaped like a Qwen3-VL repository (256)")
    add("--warm-mb", type=float, default=64.0, help="the same on the rig `warm`, with its slow hub (64)")
    add("--mbit", type=float, default=100.0, help="the mirror's link on the rig `link` (100)")
    add("--hub-mbit", type=float, default=20.0, help="the mirror's link on the rig `warm` (20)")
    add("--cluster-mbit", type=float, default=1000.0, help="the nodes' links on the rig `warm` (1000)")
    add("--no-coordinator", dest="coordinator", action="store_false", help="the node has the mirror alone")
    add("--runs", type=int, default=3, help="rounds on each rig (3)")
    add("--alone", action="store_true", help=MACHINE_TURN)
    add_output(add)
    options = parser.parse_args(arguments)
    if not options.coordinator:
        options.rigs = [name for name in options.rigs if name != "warm"]
    return options
