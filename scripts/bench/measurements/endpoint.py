"""The benchmark behind scripts/bench/endpoint: `hf download` on a node, each time into an empty cache,

direct   from a mirror
shared   through the endpoint of that node's daemon, which has an empty cache, too: the client shares it
apart    through the same, with a cache of its own

in turn, `--runs` times, on each of these rigs:

link     nobody else has the snapshot, and the mirror's link carries `--mbit`
open     the same, and nothing holds the link back
warm     another node's daemon has it: it was asked for it before. Nodes reach each other at `--cluster-mbit`, and the
         mirror's link carries `--hub-mbit`

A coordinator is there in all three (where nobody has the snapshot it is a new one each time, for it is told of what
came), unless `--no-coordinator`: then there is no `warm`. Seconds are wall-clock, from the start of `hf` to its end;
daemons are started before. Ratios are of each round's own times, `ours / direct` where nobody has it and
`direct / ours` where somebody has; medians. `copies` is what the mirror's link carried towards the nodes as a multiple
of the snapshot, headers included.
"""

import argparse
import json
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
from scripts.bench.rigs.machine import P2PMODEL, environment, file_system, import_directory, rig
from scripts.bench.rigs.programs import Program, stop_all
from scripts.bench.rigs.snapshots import write_model
from scripts.bench.rigs.turns import take_turn

REPO = "bench/model"
HF = str(Path(sys.executable).with_name("hf"))
HUB_PORT, MIRROR_PORT, COORDINATOR_PORT, PEER_PORT = 8092, 8090, 6969, 6881
LIMIT = 600.0
"""Seconds that a download may take."""
OFFERED_AFTER = 2.0
"""Seconds in which a node that has it all has told the coordinator so."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One download."""

    seconds: float
    copies: float


class Scene:
    """One rig: the hosts, the mirror, the coordinator, and in `warm` the node that has the snapshot."""

    def __init__(self, place: Path, cache: Path, flags: argparse.Namespace, name: str, stack: ExitStack) -> None:
        self._place = place / name
        self._place.mkdir()
        self._size = _size(cache)
        self._cluster = Cluster(stack)
        self._stack = stack
        hub = {"link": flags.mbit, "open": None, "warm": flags.hub_mbit}[name]
        nodes = _link(flags.cluster_mbit) if name == "warm" else None
        self._mirror, self._node, self._peer, self._coordinator = (
            self._cluster.host(host, link)
            for host, link in (("mirror", _link(hub)), ("node", nodes), ("peer", nodes), ("coordinator", None))
        )
        self.congestion = congestion_control(self._node)
        self._coordinates, self._anew = flags.coordinator, name != "warm"
        serve = ["mirror", "serve", "--listen", f"{self._mirror.address}:{MIRROR_PORT}", "--insecure-public", "-q"]
        self._start(self._mirror, [*serve, "--cache-dir", str(cache), "--json"], "mirror", stack).first()
        if not self._anew:
            self._coordinate(stack)
            self._warm(cache)

    def round(self) -> dict[str, Measured]:
        """Every contestant once."""
        return {
            "direct": self._download(self._url(), self._place / "direct"),
            "shared": self._through_a_daemon(apart=False),
            "apart": self._through_a_daemon(apart=True),
        }

    def _warm(self, cache: Path) -> None:
        """Let the other node have it: its blobs are copied, and then it is asked for them."""
        shutil.copytree(cache, self._place / "peer" / "hub", symlinks=True)
        self._daemon(self._peer, self._stack)
        self._download(f"http://127.0.0.1:{HUB_PORT}", self._place / "peer", on=self._peer)
        fetch = ["fetch", REPO, "--json", "-q"]
        self._start(self._peer, fetch, "peer", self._stack).finish()
        time.sleep(OFFERED_AFTER)

    def _through_a_daemon(self, *, apart: bool) -> Measured:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._place / "node", ignore_errors=True)
            if self._coordinates and self._anew:  # the last one was told of a torrent
                stack.callback(shutil.rmtree, self._place / "coordinator", ignore_errors=True)
                self._coordinate(stack)
            daemon = self._daemon(self._node, stack)
            home = self._place / ("apart" if apart else "node")
            measured = self._download(f"http://127.0.0.1:{HUB_PORT}", home)
            stop_all([daemon])
        return measured

    def _coordinate(self, stack: ExitStack) -> None:
        listen = ["--listen", f"{self._coordinator.address}:{COORDINATOR_PORT}", "--insecure-public"]
        self._start(self._coordinator, ["coordinator", *listen, "--json", "-q"], "coordinator", stack).first()

    def _daemon(self, host: Host, stack: ExitStack) -> Program:
        listen = ["--swarm-listen", f"{host.address}:{PEER_PORT}", "--hub-listen", f"127.0.0.1:{HUB_PORT}"]
        where = ["--endpoint", self._url()]
        if self._coordinates:
            where += ["--coordinator", f"http://{self._coordinator.address}:{COORDINATOR_PORT}"]
        daemon = self._start(host, ["daemon", *listen, *where, "--json"], host.name, stack)
        daemon.first()
        return daemon

    def _download(self, endpoint: str, home: Path, *, on: Host | None = None) -> Measured:
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
        found = _size(home / "hub")
        if found != self._size:
            raise SystemExit(f"the snapshot in {home} has {found} bytes, not {self._size}")
        if on is None:
            shutil.rmtree(home / "hub")
        return Measured(seconds, sent / self._size)

    def _start(self, host: Host, verb: list[str], name: str, stack: ExitStack) -> Program:
        home = self._place / name
        home.mkdir(exist_ok=True)
        log = self._place / f"{name}.log"
        return Program(host.inside([*P2PMODEL, *verb]), stack, env=environment(home), log=log)

    def _url(self) -> str:
        return f"http://{self._mirror.address}:{MIRROR_PORT}"


def measure(place: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """All rigs in turn."""
    report: dict[str, Any] = {}
    for name in flags.rigs:
        size = flags.warm_mb if name == "warm" else flags.size_mb
        cache = _cache(place, int(size * 1e6))
        with ExitStack() as stack:
            scene = Scene(place, cache, flags, name, stack)
            rounds = [scene.round() for _ in range(flags.runs)]
            report["congestion_control"] = scene.congestion
        report[name] = summary(rounds, inverse=name == "warm") | {"bytes": _size(cache)}
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


def _size(cache: Path) -> int:
    """Bytes of the snapshot in `cache`."""
    return sum(path.stat().st_size for path in cache.glob("models--*/snapshots/*/**/*") if path.is_file())


def summary(rounds: list[dict[str, Measured]], *, inverse: bool) -> dict[str, Any]:
    """Medians; and of the rounds' own ratios: how many times as long as direct, or as quick (`inverse`), it is."""
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
    """One rig's figures as a table."""
    print(f"{name}: {found['bytes'] / 1e6:.0f} MB, medians of {len(found['rounds'])}")
    print(f"{'':10}{'seconds':>9}{'copies':>8}{'times as quick' if name == 'warm' else 'of direct':>16}")
    for contestant in ("direct", "shared", "apart"):
        row = found[contestant]
        print(f"{contestant:10}{row['seconds']:9.2f}{row['copies']:8.2f}{row['ratio']:16.3f}", flush=True)


def _link(mbit: float | None) -> Link | None:
    return Link(mbit * 1e6 / 8, mbit * 1e6 / 8) if mbit else None


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/endpoint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rigs", nargs="+", choices=("link", "open", "warm"), default=["link", "open", "warm"])
    add("--size-mb", type=float, default=256.0, help="of the snapshot, in the shape of a Qwen3-VL repository")
    add("--warm-mb", type=float, default=64.0, help="the same on the rig `warm`, whose hub is slow")
    add("--mbit", type=float, default=100.0, help="the mirror's link on the rig `link`")
    add("--hub-mbit", type=float, default=20.0, help="the mirror's link on the rig `warm`")
    add("--cluster-mbit", type=float, default=1000.0, help="the nodes' links on the rig `warm`")
    add("--no-coordinator", dest="coordinator", action="store_false", help="the node has nobody but the mirror")
    add("--runs", type=int, default=3)
    add("--alone", action="store_true", help="wait until nobody else measures on this machine, and keep others waiting")
    add("--dir", type=Path, help="where the caches lie (default: the temporary directory)")
    add("--json", type=Path, metavar="FILE", help="write every number here")
    flags = parser.parse_args()
    if not flags.coordinator:
        flags.rigs = [name for name in flags.rigs if name != "warm"]
    return flags


def main() -> None:
    """Measure, print, and write the numbers to --json."""
    flags = _flags()
    if reason := namespaces.lacking():
        sys.exit(f"scripts/bench/endpoint cannot run here: {reason}")
    with ExitStack() as stack:
        take_turn(stack, alone=flags.alone)
        place = Path(tempfile.mkdtemp(prefix="bench-endpoint-", dir=flags.dir))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        report = measure(place, flags)
        report["rig"] = f"tc tbf in network namespaces, {report['congestion_control']}, {file_system(place)}, {rig()}"
    report["flags"] = {key: str(value) for key, value in vars(flags).items()}
    print(report["rig"])
    if flags.json:
        flags.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
