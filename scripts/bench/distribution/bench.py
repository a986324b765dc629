"""The benchmark scripts/bench/swarm: every cluster and every contestant in turn."""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from scripts.bench.commands.swarm import SLOWER
from scripts.bench.distribution import bound
from scripts.bench.distribution.contestants import REPO, Contestant
from scripts.bench.distribution.kills import Kill
from scripts.bench.distribution.own_nodes import loading_nodes, own_nodes
from scripts.bench.distribution.picture import Panel, draw
from scripts.bench.distribution.report import (
    LEGEND,
    comparisons,
    delayed_by_loads,
    growth,
    held_up,
    summary,
    swarm_table,
    warnings,
)
from scripts.bench.distribution.rivals import rival
from scripts.bench.distribution.run import SwarmRun, Testbed
from scripts.bench.rigs import namespaces, wire_counters
from scripts.bench.rigs.cluster import Cluster, Host, Link, congestion_control
from scripts.bench.rigs.machine import describe_machine, file_system, spread_folders
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import import_directory, write_many, write_model
from scripts.bench.rigs.turns import take_turn

MOST_BOUNDS, LEAST_LIMIT = 12, 120.0
"""A run is abandoned after so many bounds, or two for each node (a copy each takes one); never before 120 s."""
SOURCES = ("seeder", "mirror")


class SwarmBench:
    """The snapshot, and every cluster and contestant in turn."""

    def __init__(self, place: Path, options: argparse.Namespace) -> None:
        self._place = place
        self._options = options
        self._panels: list[Panel] = []
        source = place / "source"
        source.mkdir()
        if options.files:
            self.size = write_many(source, options.files, *options.file_size)
        else:
            self.size = write_model(source, int(options.size_mb * 1e6))
        self.files = sum(path.is_file() for path in source.rglob("*"))
        import_directory(source, REPO, place / "hub")
        shutil.rmtree(source)

    def run(self) -> dict[str, Any]:
        """Measure. The report holds every figure."""
        rows: list[tuple[str, dict[str, Any]]] = []
        report: dict[str, Any] = {"size": self.size, "files": self.files, "raw_mbit": self._options.mbit}
        for count in self._options.nodes:
            for mixed in (False, True) if self._options.mixed else (False,):
                with ExitStack() as stack:
                    rows += self._cluster(count, stack, report, mixed=mixed)
        report["results"] = [{"contestant": name} | row for name, row in rows]
        report |= {"growth": growth(rows), "held_up": held_up(rows), "delayed_by_loads": delayed_by_loads(rows)}
        print(swarm_table(rows), LEGEND, *comparisons(rows), *warnings(rows), sep="\n")
        if self._options.plot:
            draw(self._panels, self._options.plot)
        return report

    def _cluster(
        self, count: int, stack: ExitStack, report: dict[str, Any], *, mixed: bool
    ) -> list[tuple[str, dict[str, Any]]]:
        options, own = self._options, self._options.own_mirror_mbit is not None
        cluster = Cluster(stack, options.congestion)
        seeder = cluster.host("seeder", Link.of_mbit(options.seeder_mbit))
        mirror = cluster.host("mirror", None if own else Link.of_mbit(options.mirror_mbit), outside=own)
        coordinator = cluster.host("coordinator", None)
        peers = self._peers(cluster, count, mixed=mixed)
        report["congestion_control"] = congestion_control(seeder)
        good = bound.measure(cluster, mirror if options.no_seeder else seeder, peers)
        sources = [seeder, mirror]
        for host in peers if options.zones > 1 else ():
            wire_counters.count_from(host, [*sources, *(each for each in peers if each.zone != host.zone)])
        testbed = Testbed(cluster, seeder, mirror, coordinator, peers, self._place / "hub", self.size, self._place)
        print(_describe(count, good, good.bound(self.size)), flush=True)
        rows = [(each.name, self._contestant(each, testbed, good)) for each in self._contestants()]
        for _name, row in rows:
            row["goodput"] = {"origin": good.origin, "up": good.nodes[0].up, "down": good.nodes[0].down}
            row["goodput"] |= {"own": good.own}
            row["mixed"] = mixed
        return rows

    def _peers(self, cluster: Cluster, count: int, *, mixed: bool) -> list[Host]:
        slow = count // 4 if mixed else 0
        rates = [self._options.mbit] * (count - slow) + [self._options.mbit / SLOWER] * slow
        own_mbit = self._options.own_mirror_mbit
        own = Link.of_mbit(own_mbit) if own_mbit is not None else None
        zones = [f"z{number}" for number in range(self._options.zones)] if self._options.zones > 1 else [""]
        for zone in zones if self._options.between_mbit else ():
            cluster.zone(zone, Link.of_mbit(self._options.between_mbit))
        return [
            cluster.host(f"peer{number}", Link.of_mbit(rate), own=own, zone=zones[number % len(zones)])
            for number, rate in enumerate(rates, 1)
        ]

    def _contestants(self) -> list[Contestant]:
        options = self._options
        env = dict(options.set)
        own = {
            "ours": own_nodes(cold=options.no_seeder, apart=bool(options.kill), env=env),
            "loading": loading_nodes(env),
        }
        return [own.get(name) or rival(name) for name in options.contestants]

    def _contestant(self, each: Contestant, testbed: Testbed, good: bound.Goodput) -> dict[str, Any]:
        options, least = self._options, good.bound(self.size)
        runs = []
        for number in range(options.runs):
            kill = Kill.parse(options.kill, options.kill_at, options.restart) if options.kill else None
            limit = max(LEAST_LIMIT, max(MOST_BOUNDS, 2 * len(testbed.peers)) * least)
            run = SwarmRun(testbed, each, kill, limit, number)
            runs.append(run.run())
            row = summary(runs[-1:], least)
            sent, content = (row[f"seeder_{kind}"] + row[f"mirror_{kind}"] for kind in ("sent", "says"))
            copies = f"{sent:.3f} copies from the origin on its links, {content:.3f} of content"
            result = f"last {row['last']:.3f} T*, {row['last_seconds']:.1f} s, {copies}"
            print(f"  {each.name} {number + 1}: {result}", flush=True)
        title = f"{each.name}, {len(testbed.peers)} nodes, {self.size / 1e6:.0f} MB"
        self._panels.append(Panel(title, runs[-1]["ready"], len(testbed.peers), least, run.timeline, SOURCES))
        return summary(runs, least)


def _describe(count: int, good: bound.Goodput, least: float) -> str:
    origin, up, down = (rate * 8 / 1e6 for rate in (good.origin, good.nodes[0].up, good.nodes[0].down))
    slow = min(link.down for link in good.nodes) * 8 / 1e6
    tail = f", the slowest {slow:.1f}" if slow < 0.9 * down else ""
    links = f"{origin:.1f} Mbit/s out of the origin, nodes {up:.1f} up, {down:.1f} down{tail}"
    own = f", {good.own * 8 / 1e6:.1f} Mbit/s of it each node's own" if good.own else ""
    return f"{count} nodes: goodput {links}{own}; T* = {least:.2f} s"


def _stop(*_arguments: object) -> NoReturn:
    raise SystemExit(143)


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json."""
    if reason := namespaces.unavailable():
        sys.exit(f"scripts/bench/swarm cannot run here: {reason}")
    signal.signal(signal.SIGTERM, _stop)
    with ExitStack() as stack:
        take_turn(stack, alone=options.alone)
        place = Path(tempfile.mkdtemp(prefix="bench-swarm-", dir=options.dir))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        spread_folders(place)
        try:
            report = SwarmBench(place, options).run()
        except subprocess.CalledProcessError as error:
            sys.exit(f"scripts/bench/swarm: {' '.join(map(str, error.cmd))} failed")
        links = f"tc tbf in network namespaces, {report['congestion_control']}"
        report["rig"] = f"{links}, {file_system(place)}, {describe_machine()}"
    report["flags"] = {key: str(value) for key, value in vars(options).items()}
    print(report["rig"])
    write_json(options.json, report)
