"""The benchmark behind scripts/bench/swarm: N nodes, a snapshot of S bytes, and links that are alike or not.

Real processes in network namespaces on one bridge, a `tc tbf` on both ends of every link. The seeder has all, the
nodes nothing. T* is the least that physics allows, max(S / B, S / d, N * S / (B + sum of uploads)), where B (the
seeder's upload, the mirror's without a seeder), d (the slowest download) and the uploads are what one TCP stream
carries on those very links, measured in the same run. Where each node has a link of its own to the mirror, which
carries W, T* is what pulling first and exchanging then would take, S / (N * W) + S / d: it can be beaten.

The clock starts when a gate opens: the coordinator (for `hf` the mirror) is held by SIGSTOP until every node has
connected to it, so that the start of N interpreters on few cores is not counted as swarming; finding, joining,
announcing and dialling are. Figures from the first process's start are given, too.
"""

import argparse
import json
import math
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from scripts.bench.distribution import bound
from scripts.bench.distribution.contestants import REPO, Contestant
from scripts.bench.distribution.kills import Kill
from scripts.bench.distribution.others import OTHERS, others
from scripts.bench.distribution.ours import ours
from scripts.bench.distribution.picture import Panel, draw
from scripts.bench.distribution.report import LEGEND, comparisons, complaints, growth, held_up, summary, table
from scripts.bench.distribution.run import Field, Run
from scripts.bench.rigs import namespaces
from scripts.bench.rigs.cluster import Cluster, Host, Link, congestion_control
from scripts.bench.rigs.machine import file_system, import_directory, rig, spread
from scripts.bench.rigs.snapshots import write_many, write_model
from scripts.bench.rigs.turns import take_turn

SLOWER = 10
"""How many times slower the slow quarter of --mixed is."""
MOST_BOUNDS, LEAST_LIMIT = 12, 120.0
"""A run is given up after so many bounds, or two for each node (a copy each takes one), not before so many seconds."""


class Bench:
    """The snapshot, and every cluster and contestant in turn."""

    def __init__(self, place: Path, flags: argparse.Namespace) -> None:
        self._place = place
        self._flags = flags
        self._panels: list[Panel] = []
        source = place / "source"
        source.mkdir()
        if flags.files:
            self.size = write_many(source, flags.files, *flags.file_size)
        else:
            self.size = write_model(source, int(flags.size_mb * 1e6))
        self.files = sum(path.is_file() for path in source.rglob("*"))
        import_directory(source, REPO, place / "hub")
        shutil.rmtree(source)

    def run(self) -> dict[str, Any]:
        """Measure; the report holds every figure."""
        rows: list[tuple[str, dict[str, Any]]] = []
        report: dict[str, Any] = {"size": self.size, "files": self.files, "raw_mbit": self._flags.mbit}
        for count in self._flags.nodes:
            for mixed in (False, True) if self._flags.mixed else (False,):
                with ExitStack() as stack:
                    rows += self._cluster(count, stack, report, mixed=mixed)
        report["results"] = [{"contestant": name} | row for name, row in rows]
        report |= {"growth": growth(rows), "held_up": held_up(rows)}
        print(table(rows), LEGEND, *comparisons(rows), *complaints(rows), sep="\n")
        if self._flags.plot:
            draw(self._panels, self._flags.plot)
        return report

    def _cluster(
        self, count: int, stack: ExitStack, report: dict[str, Any], *, mixed: bool
    ) -> list[tuple[str, dict[str, Any]]]:
        flags, own = self._flags, self._flags.own_mirror_mbit is not None
        cluster = Cluster(stack, flags.congestion)
        seeder = cluster.host("seeder", _link(flags.seeder_mbit))
        mirror = cluster.host("mirror", None if own else _link(flags.mirror_mbit), outside=own)
        coordinator = cluster.host("coordinator", None)
        peers = self._peers(cluster, count, mixed=mixed)
        report["congestion_control"] = congestion_control(seeder)
        good = bound.measure(cluster, mirror if flags.no_seeder else seeder, peers)
        shared = Field(cluster, seeder, mirror, coordinator, peers, self._place / "hub", self.size, self._place)
        print(_words(count, good, good.bound(self.size)), flush=True)
        rows = [(each.name, self._contestant(each, shared, good)) for each in self._contestants()]
        for _name, row in rows:
            row["goodput"] = {"origin": good.origin, "up": good.nodes[0].up, "down": good.nodes[0].down}
            row["goodput"] |= {"own": good.own}
            row["mixed"] = mixed
        return rows

    def _peers(self, cluster: Cluster, count: int, *, mixed: bool) -> list[Host]:
        slow = count // 4 if mixed else 0
        rates = [self._flags.mbit] * (count - slow) + [self._flags.mbit / SLOWER] * slow
        own = _link(self._flags.own_mirror_mbit) if self._flags.own_mirror_mbit is not None else None
        return [cluster.host(f"peer{number}", _link(rate), own=own) for number, rate in enumerate(rates, 1)]

    def _contestants(self) -> list[Contestant]:
        flags = self._flags
        own = ours(cold=flags.no_seeder, apart=bool(flags.kill), env=dict(flags.set))
        return [own if name == "ours" else others(name) for name in flags.contestants]

    def _contestant(self, each: Contestant, shared: Field, good: bound.Goodput) -> dict[str, Any]:
        flags, least = self._flags, good.bound(self.size)
        runs = []
        for number in range(flags.runs):
            kill = Kill.parse(flags.kill, flags.kill_at, flags.restart) if flags.kill else None
            patience = max(LEAST_LIMIT, max(MOST_BOUNDS, 2 * len(shared.peers)) * least)
            run = Run(shared, each, kill, patience, number)
            runs.append(run.run())
            row = summary(runs[-1:], least)
            sent, content = (row[f"seeder_{kind}"] + row[f"mirror_{kind}"] for kind in ("sent", "says"))
            copies = f"{sent:.3f} copies from the origin on its links, {content:.3f} of content"
            told = f"last {row['last']:.3f} T*, {row['last_seconds']:.1f} s, {copies}"
            print(f"  {each.name} {number + 1}: {told}", flush=True)
        title = f"{each.name}, {len(shared.peers)} nodes, {self.size / 1e6:.0f} MB"
        self._panels.append(Panel(title, runs[-1]["ready"], len(shared.peers), least, run.timeline, SOURCES))
        return summary(runs, least)


SOURCES = ("seeder", "mirror")


def _link(mbit: float) -> Link:
    return Link(mbit * 1e6 / 8, mbit * 1e6 / 8)


def _words(count: int, good: bound.Goodput, least: float) -> str:
    origin, up, down = (rate * 8 / 1e6 for rate in (good.origin, good.nodes[0].up, good.nodes[0].down))
    slow = min(link.down for link in good.nodes) * 8 / 1e6
    tail = f", the slowest {slow:.1f}" if slow < 0.9 * down else ""
    links = f"{origin:.1f} Mbit/s out of the origin, nodes {up:.1f} up, {down:.1f} down{tail}"
    own = f", {good.own * 8 / 1e6:.1f} Mbit/s of it each node's own" if good.own else ""
    return f"{count} nodes: goodput {links}{own}; T* = {least:.2f} s"


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def _span(text: str) -> tuple[int, int]:
    smallest, _, largest = text.partition(":")
    return int(smallest), int(largest or smallest)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/swarm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--nodes", type=int, nargs="+", default=[8], metavar="N")
    add("--size-mb", type=float, default=256.0, help="of the snapshot, in the shape of a Qwen3-VL repository")
    add("--files", type=int, metavar="COUNT", help="a snapshot of that many small files instead")
    add("--file-size", type=_span, default=(1000, 20000), metavar="MIN:MAX", help="of --files, in bytes")
    add("--mbit", type=float, default=100.0, help="each node's link, up and down")
    add("--seeder-mbit", type=float, help="the seeder's link (default: a node's)")
    add("--mirror-mbit", type=float, help="the mirror's link (default: a node's)")
    add("--own-mirror-mbit", type=float, metavar="MBIT", help="with --no-seeder: each node reaches the mirror by a "
        "link of its own, beside the one to the other nodes; the mirror's own has no limit")  # fmt: skip
    add("--mixed", action="store_true", help=f"then again with a quarter of the nodes {SLOWER} times slower")
    add("--congestion", metavar="NAME", help="TCP congestion control in the rig (default: the machine's)")
    add("--no-seeder", action="store_true", help="cold: no torrent exists, only the coordinator and the mirror")
    add("--kill", metavar="WHO", help="seeder, coordinator, mirror, peers:SHARE, joined by commas; with a coordinator "
        "apart from the seeder")  # fmt: skip
    add("--kill-at", type=float, default=0.5, metavar="SHARE", help="of all bytes wanted, when they die")
    add("--restart", type=float, nargs="?", const=3.0, metavar="SECONDS", help="start the killed again after so long")
    add("--contestants", nargs="+", choices=("ours", *OTHERS), default=["ours"])
    add("--set", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="environment of our nodes")
    add("--runs", type=int, default=1)
    add("--alone", action="store_true", help="wait until nobody else measures on this machine, and keep others waiting")
    add("--dir", type=Path, help="where the caches lie (default: the temporary directory)")
    add("--json", type=Path, metavar="FILE", help="write every number here")
    add("--plot", type=Path, metavar="FILE", help="draw the last run of each contestant (extra `plot`)")
    return parser


def _flags() -> argparse.Namespace:
    parser = _parser()
    flags = parser.parse_args()
    flags.seeder_mbit = flags.seeder_mbit or flags.mbit
    flags.mirror_mbit = flags.mirror_mbit or flags.mbit
    try:
        if flags.kill:
            Kill.parse(flags.kill, flags.kill_at, flags.restart)
    except ValueError as error:
        parser.error(f"--kill: {error}")
    if flags.own_mirror_mbit is not None and not flags.no_seeder:
        parser.error("--own-mirror-mbit goes with --no-seeder")
    if (flags.kill or flags.no_seeder) and flags.contestants != ["ours"]:
        parser.error("--kill and --no-seeder are for ours alone")
    if flags.congestion and flags.congestion not in (allowed := ALLOWED.read_text().split()):
        parser.error(f"--congestion: namespaces may use {', '.join(allowed)}")
    missing = [each for each in flags.contestants if each in PROGRAMS and not shutil.which(PROGRAMS[each])]
    if missing:
        parser.error(f"not installed: {', '.join(PROGRAMS[each] for each in missing)}")
    return flags


ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
PROGRAMS = {"aria2": "aria2c", "qbittorrent": "qbittorrent-nox"}


def _stop(*_arguments: object) -> NoReturn:
    raise SystemExit(143)


def _finite(value: Any) -> Any:
    """`value` with None for what never came, for JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if value == math.inf else value


def main() -> None:
    """Measure, print, and write the numbers to --json."""
    flags = _flags()
    if reason := namespaces.lacking():
        sys.exit(f"scripts/bench/swarm cannot run here: {reason}")
    signal.signal(signal.SIGTERM, _stop)
    with ExitStack() as stack:
        take_turn(stack, alone=flags.alone)
        place = Path(tempfile.mkdtemp(prefix="bench-swarm-", dir=flags.dir))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        spread(place)
        try:
            report = Bench(place, flags).run()
        except subprocess.CalledProcessError as error:
            sys.exit(f"scripts/bench/swarm: {' '.join(map(str, error.cmd))} failed")
        report["rig"] = f"tc tbf in network namespaces, {report['congestion_control']}, {file_system(place)}, {rig()}"
    report["flags"] = {key: str(value) for key, value in vars(flags).items()}
    print(report["rig"])
    if flags.json:
        flags.json.write_text(json.dumps(_finite(report), indent=1) + "\n")


if __name__ == "__main__":
    main()
