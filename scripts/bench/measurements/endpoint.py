"""The benchmark scripts/bench/endpoint: `hf download` through a daemon's hub endpoint."""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.bench.rigs import namespaces
from scripts.bench.rigs.cluster import Cluster, Host, Link, congestion_control
from scripts.bench.rigs.machine import HF, P2PMODEL, describe_machine, environment, file_system, publish_token
from scripts.bench.rigs.programs import Program, stop_all
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import check_published, import_directory, published_size, write_model
from scripts.bench.rigs.turns import take_turn

REPO = "bench/model"
HUB_PORT, MIRROR_PORT, COORDINATOR_PORT, PEER_PORT = 8092, 8090, 6969, 6881
LIMIT = 600.0
"""Longest download in seconds."""
OFFERED_AFTER = 2.0
"""Seconds within which a node with the whole snapshot has reported it to the coordinator."""


@dataclass(frozen=True, slots=True)
class EndpointSample:
    """One download."""

    seconds: float
    copies: float


class EndpointRig:
    """One rig: the hosts, the mirror, the coordinator, and on `warm` the node that has the snapshot."""

    def __init__(self, place: Path, cache: Path, options: argparse.Namespace, name: str, stack: ExitStack) -> None:
        self._place = place / name
        self._place.mkdir()
        self._size = published_size(cache)
        self._cluster = Cluster(stack)
        self._stack = stack
        hub = {"link": Link.of_mbit(options.mbit), "open": None, "warm": Link.of_mbit(options.hub_mbit)}[name]
        nodes = Link.of_mbit(options.cluster_mbit) if name == "warm" else None
        self._mirror, self._node, self._peer, self._coordinator = (
            self._cluster.host(host, link)
            for host, link in (("mirror", hub), ("node", nodes), ("peer", nodes), ("coordinator", None))
        )
        self.congestion = congestion_control(self._node)
        self._coordinates, self._anew = options.coordinator, name != "warm"
        serve = ["mirror", "serve", "--listen", f"{self._mirror.address}:{MIRROR_PORT}", "--insecure-public", "-q"]
        self._start(self._mirror, [*serve, "--cache-dir", str(cache), "--json"], "mirror", stack).first()
        if not self._anew:
            self._coordinate(stack)
            self._warm(cache)

    def round(self) -> dict[str, EndpointSample]:
        """Every contestant once."""
        return {
            "direct": self._download(self._url(), self._place / "direct"),
            "shared": self._through_a_daemon(apart=False),
            "apart": self._through_a_daemon(apart=True),
        }

    def _warm(self, cache: Path) -> None:
        """Give the snapshot to the other node: copy its blobs, then request them."""
        shutil.copytree(cache, self._place / "peer" / "hub", symlinks=True)
        self._daemon(self._peer, self._stack)
        self._download(f"http://127.0.0.1:{HUB_PORT}", self._place / "peer", on=self._peer)
        fetch = ["fetch", REPO, "--json", "-q"]
        self._start(self._peer, fetch, "peer", self._stack).finish()
        time.sleep(OFFERED_AFTER)

    def _through_a_daemon(self, *, apart: bool) -> EndpointSample:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._place / "node", ignore_errors=True)
            if self._coordinates and self._anew:  # the previous one has the torrent
                stack.callback(shutil.rmtree, self._place / "coordinator", ignore_errors=True)
                self._coordinate(stack)
            daemon = self._daemon(self._node, stack)
            home = self._place / ("apart" if apart else "node")
            measured = self._download(f"http://127.0.0.1:{HUB_PORT}", home)
            stop_all([daemon])
        return measured

    def _coordinate(self, stack: ExitStack) -> None:
        listen = ["--listen", f"{self._coordinator.address}:{COORDINATOR_PORT}", "--insecure-public"]
        listen += ["--publish-token-file", str(publish_token(self._place))]
        self._start(self._coordinator, ["coordinator", *listen, "--json", "-q"], "coordinator", stack).first()

    def _daemon(self, host: Host, stack: ExitStack) -> Program:
        listen = ["--swarm-listen", f"{host.address}:{PEER_PORT}", "--hub-listen", f"127.0.0.1:{HUB_PORT}"]
        where = ["--endpoint", self._url()]
        if self._coordinates:
            where += ["--coordinator", f"http://{self._coordinator.address}:{COORDINATOR_PORT}"]
        daemon = self._start(host, ["daemon", *listen, *where, "--json"], host.name, stack)
        daemon.first()
        return daemon

    def _download(self, endpoint: str, home: Path, *, on: Host | None = None) -> EndpointSample:
        host = on or self._node
        home.mkdir(exist_ok=True)
        env = environment(home) | {"HF_ENDPOINT": endpoint}
        with ExitStack() as stack:
            before = self._cluster.traffic()[self._mirror.name][0]
            began = time.monotonic()
            client = Program(host.inside([HF, "download", REPO]), stack, env=env, log=self._place / "hf.log")
            client.finish(LIMIT)
            seconds = time.monotonic() - began
            sent = self._cluster.traffic()[self._mirror.name][0] - before
        check_published(home / "hub", self._size)
        if on is None:
            shutil.rmtree(home / "hub")
        return EndpointSample(seconds, sent / self._size)

    def _start(self, host: Host, verb: list[str], name: str, stack: ExitStack) -> Program:
        home = self._place / name
        home.mkdir(exist_ok=True)
        log = self._place / f"{name}.log"
        return Program(host.inside([*P2PMODEL, *verb]), stack, env=environment(home), log=log)

    def _url(self) -> str:
        return f"http://{self._mirror.address}:{MIRROR_PORT}"


def measure(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rigs in turn."""
    report: dict[str, Any] = {}
    for name in options.rigs:
        size = options.warm_mb if name == "warm" else options.size_mb
        cache = _cache(place, int(size * 1e6))
        with ExitStack() as stack:
            rig = EndpointRig(place, cache, options, name, stack)
            rounds = [rig.round() for _ in range(options.runs)]
            report["congestion_control"] = rig.congestion
        report[name] = summary(rounds, inverse=name == "warm") | {"bytes": published_size(cache)}
        show(name, report[name])
    return report


def _cache(place: Path, size: int) -> Path:
    cache = place / f"cache-{size}"
    if not cache.exists():
        source = place / "source"
        source.mkdir()
        write_model(source, size)
        import_directory(source, REPO, cache)
        shutil.rmtree(source)
    return cache


def summary(rounds: list[dict[str, EndpointSample]], *, inverse: bool) -> dict[str, Any]:
    """Medians, and the medians of the rounds' own ratios to direct: seconds, or speed with `inverse`."""
    found: dict[str, Any] = {"rounds": [{name: asdict(each) for name, each in one.items()} for one in rounds]}
    for name in rounds[0]:
        ratios = [one[name].seconds / one["direct"].seconds for one in rounds]
        found[name] = {
            "seconds": statistics.median(one[name].seconds for one in rounds),
            "copies": statistics.median(one[name].copies for one in rounds),
            "ratio": statistics.median(1 / ratio if inverse else ratio for ratio in ratios),
        }
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """Print the figures of one rig as a table."""
    print(f"{name}: {found['bytes'] / 1e6:.0f} MB, medians of {len(found['rounds'])}")
    print(f"{'':10}{'seconds':>9}{'copies':>8}{'times as quick' if name == 'warm' else 'of direct':>16}")
    for contestant in ("direct", "shared", "apart"):
        row = found[contestant]
        print(f"{contestant:10}{row['seconds']:9.2f}{row['copies']:8.2f}{row['ratio']:16.3f}", flush=True)


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json."""
    if reason := namespaces.unavailable():
        sys.exit(f"scripts/bench/endpoint cannot run here: {reason}")
    with ExitStack() as stack:
        take_turn(stack, alone=options.alone)
        place = Path(tempfile.mkdtemp(prefix="bench-endpoint-", dir=options.dir))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        report = measure(place, options)
        links = f"tc tbf in network namespaces, {report['congestion_control']}"
        report["rig"] = f"{links}, {file_system(place)}, {describe_machine()}"
    report["flags"] = {key: str(value) for key, value in vars(options).items()}
    print(report["rig"])
    write_json(options.json, report)
