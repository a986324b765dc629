"""N nodes, a snapshot of S bytes, and links that are alike or not: the time until each node has the snapshot verified
and published.

Real processes run in network namespaces on one bridge, with `tc tbf` on both ends of every link. The seeder has all
bytes, the nodes none. T* is the physical minimum, max(S / B, S / d, N * S / (B + sum of uploads)). B is the seeder's
upload (the mirror's without a seeder), d the slowest download. B, d and the uploads are the goodput of one TCP stream
on those very links, measured in the same run. Where each node has its own link to the mirror, of rate W, T* is the time
to pull one copy over all of them and to exchange it then, S / (N * W) + S / d; a run can beat that.

The clock starts when a gate opens. The coordinator (for `hf` the mirror) is held by SIGSTOP until every node has
connected to it, so the start of N interpreters on few cores does not count. Resolving, joining, announcing and dialling
do count. Figures from the start of the first process are printed as well.

Needs root; everything is deleted at the end.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.commands.options import MACHINE_TURN, add_output, command_line
from scripts.bench.distribution.kills import Kill

BENCHMARK = "scripts.bench.distribution.bench"
RIVALS = ("libtorrent", "qbittorrent", "aria2", "hf")
"""Contestants besides `ours`."""
SLOWER = 10
"""How many times slower the slow quarter of --mixed is."""
_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_PROGRAMS = {"aria2": "aria2c", "qbittorrent": "qbittorrent-nox"}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/swarm."""
    parser = _parser()
    options = parser.parse_args(arguments)
    options.seeder_mbit = options.seeder_mbit or options.mbit
    options.mirror_mbit = options.mirror_mbit or options.mbit
    try:
        if options.kill:
            Kill.parse(options.kill, options.kill_at, options.restart)
    except ValueError as error:
        parser.error(f"--kill: {error}")
    if options.own_mirror_mbit is not None and not options.no_seeder:
        parser.error("--own-mirror-mbit goes with --no-seeder")
    if (options.kill or options.no_seeder) and options.contestants != ["ours"]:
        parser.error("--kill and --no-seeder need the contestant `ours` alone")
    if options.congestion and options.congestion not in (allowed := _ALLOWED.read_text().split()):
        parser.error(f"--congestion: namespaces may use {', '.join(allowed)}")
    missing = [each for each in options.contestants if each in _PROGRAMS and not shutil.which(_PROGRAMS[each])]
    if missing:
        parser.error(f"not installed: {', '.join(_PROGRAMS[each] for each in missing)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = command_line("swarm", __doc__)
    add = parser.add_argument
    add("--nodes", type=int, nargs="+", default=[8], metavar="N", help="numbers of nodes, each measured (8)")
    add("--size-mb", type=float, default=256.0, help="size of the snapshot, shaped like a Qwen3-VL repository (256)")
    add("--files", type=int, metavar="COUNT", help="a snapshot of that many small files instead")
    add("--file-size", type=_span, default=(1000, 20000), metavar="MIN:MAX", help="size of --files, in bytes")
    add("--mbit", type=float, default=100.0, help="each node's link, up and down (100)")
    add("--seeder-mbit", type=float, help="the seeder's link (default: a node's)")
    add("--mirror-mbit", type=float, help="the mirror's link (default: a node's)")
    add("--own-mirror-mbit", type=float, metavar="MBIT", help="with --no-seeder: each node has its own link to the "
        "mirror, beside its link to the other nodes; the mirror's own link has no limit")  # fmt: skip
    add(
        "--zones", type=int, default=1, metavar="K", help="nodes of ours are in K zones in turn, the seeder in none (1)"
    )
    add("--between-mbit", type=float, metavar="MBIT", help="with --zones: one link of each zone to all outside it")
    add("--mixed", action="store_true", help=f"measure again with a quarter of the nodes {SLOWER} times slower")
    add("--congestion", metavar="NAME", help="TCP congestion control in the rig (default: the machine's)")
    add("--no-seeder", action="store_true", help="cold: no torrent exists, only the coordinator and the mirror")
    add("--kill", metavar="ROLES", help="processes to kill: seeder, coordinator, mirror, peers:SHARE, joined by "
        "commas; the coordinator is then apart from the seeder")  # fmt: skip
    add("--kill-at", type=float, default=0.5, metavar="SHARE", help="time of --kill, as a share of all bytes wanted")
    add("--restart", type=float, nargs="?", const=3.0, metavar="SECONDS", help="restart the killed after this time")
    add("--contestants", nargs="+", choices=("ours", "loading", *RIVALS), default=["ours"],
        help="`loading`: our nodes, which ask for the next tensors of a load meanwhile (ours)")  # fmt: skip
    add("--set", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="environment of our nodes")
    add("--runs", type=int, default=1, help="runs of each contestant (1)")
    add("--alone", action="store_true", help=MACHINE_TURN)
    add_output(add)
    add("--plot", type=Path, metavar="FILE", help="draw the last run of each contestant (extra `plot`)")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def _span(text: str) -> tuple[int, int]:
    smallest, _, largest = text.partition(":")
    return int(smallest), int(largest or smallest)
