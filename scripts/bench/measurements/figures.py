"""The benchmark scripts/bench/figures: what a daemon reports, against the counters of its network interface."""

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from p2pmodel.client import Client
from p2pmodel.core.progress.views import TransferView
from scripts.bench.rigs import namespaces
from scripts.bench.rigs.cluster import Cluster, Host
from scripts.bench.rigs.machine import P2PMODEL, describe_machine, environment, publish_token
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import import_directory, write_model

FROM_MIRROR, FROM_SWARM = "bench/mirrored", "bench/swarmed"
REPOSITORIES = {
    "both": (FROM_MIRROR, FROM_SWARM),
    "schedule": (FROM_MIRROR, FROM_SWARM),
    "mirror": (FROM_MIRROR,),
    "mirrors": (FROM_MIRROR,),
    "swarm": (FROM_SWARM,),
}
"""By mix of sources, what is fetched. `mirrors`: two of them; `schedule`: the limit is one of the hour."""
COORDINATOR_PORT, MIRROR_PORT, PEER_PORT = 6969, 8090, 6881
EVERY = 0.25
EDGE = 3.0
"""Seconds at the begin and at the end of the run that are left out where rates are compared."""
LONGEST = 600.0


@dataclass(frozen=True, slots=True)
class FiguresSample:
    """One moment: bytes received by the interface, and what the daemon reports of both transfers together."""

    at: float
    interface: int
    received: int
    rate: float
    eta: float | None
    done: bool


class FiguresRig:
    """A mirror with one snapshot; a seeder and a peer with the other; and the node, which fetches `repos`."""

    def __init__(self, place: Path, size: int, limit: int, mix: str, stack: ExitStack) -> None:
        self.repos = REPOSITORIES[mix]
        self._place = place
        self._stack = stack
        self.cluster = Cluster(stack)
        mirror, seeder, peer, node = (self.cluster.host(n, None) for n in ("mirror", "seeder", "peer", "node"))
        sizes = {repo: self._made(repo, size, host) for repo, host in ((FROM_MIRROR, mirror), (FROM_SWARM, seeder))}
        self.size = sum(sizes[repo] for repo in self.repos)
        ports = [MIRROR_PORT, MIRROR_PORT + 1] if mix == "mirrors" else [MIRROR_PORT]
        for port in ports:
            serve = ("mirror", "serve", "--listen", f"{mirror.address}:{port}", "--insecure-public", "--json", "-q")
            self._start(mirror, *serve).first()
        coordinator = f"http://{seeder.address}:{COORDINATOR_PORT}"
        shared = ("--swarm-listen", f"{seeder.address}:{PEER_PORT}", "--insecure-public")
        seed = ("seed", FROM_SWARM, "--listen", f"{seeder.address}:{COORDINATOR_PORT}", *shared, "--json", "-q")
        self._start(seeder, *seed, HF_HUB_OFFLINE="1").first()
        fetch = ("fetch", FROM_SWARM, "--coordinator", coordinator, "--seed-time", "3600", "--json", "-q")
        self._start(peer, *fetch, "--swarm-listen", f"{peer.address}:{PEER_PORT}").first()
        self.socket = place / "node" / "daemon.sock"
        daemon = ("daemon", "--coordinator", coordinator)
        daemon += tuple(arg for port in ports for arg in ("--endpoint", f"http://{mirror.address}:{port}"))
        daemon += ("--swarm-listen", f"{node.address}:{PEER_PORT}", "--hub-listen", "off", "--socket", str(self.socket))
        by_hour = {"P2PMODEL_DAEMON_DOWNLOAD_SCHEDULE": f"00:00-24:00={limit}"} if mix == "schedule" else {}
        daemon += () if by_hour else ("--download-limit", str(limit))
        self._start(node, *daemon, "--json", "-q", **by_hour).first()

    def _made(self, repo: str, size: int, host: Host) -> int:
        source = self._place / f"{host.name}-files"
        source.mkdir()
        written = write_model(source, size)
        import_directory(source, repo, self._place / host.name / "hub")
        return written

    def _start(self, host: Host, *command: str, **env: str) -> Program:
        home = self._place / host.name
        home.mkdir(exist_ok=True)
        known = environment(home) | {"P2PMODEL_STATE_DIR": str(home / "state")} | env
        if command[0] == "seed":
            command = (*command, "--publish-token-file", str(publish_token(self._place)))
        inside = host.inside([*P2PMODEL, *command])
        return Program(inside, self._stack, env=known, log=self._place / f"{host.name}.log")

    def sample(self, views: tuple[TransferView, ...]) -> FiguresSample:
        """The figures now."""
        received = sum(view.progress.from_peers + view.progress.from_mirrors for view in views)
        left = [view for view in views if not view.complete]
        # With two transfers each one's estimate holds only until the other ends.
        eta = left[0].eta if len(left) == 1 else None
        interface = self.cluster.traffic()["node"][1]
        rate = sum(view.rate for view in views)
        return FiguresSample(time.monotonic(), interface, received, rate, eta, self._complete(views))

    def _complete(self, views: tuple[TransferView, ...]) -> bool:
        return len(views) == len(self.repos) and all(view.complete for view in views)


async def watch(rig: FiguresRig) -> tuple[list[FiguresSample], list[tuple[str, float, float]]]:
    """Run both transfers to their end: all samples, and what `why` says in the middle, with the kernel's rate."""
    samples: list[FiguresSample] = []
    reasons: list[tuple[str, float, float]] = []
    async with Client(rig.socket) as client:
        before = rig.sample(())
        await asyncio.gather(*(client.start(repo) for repo in rig.repos))
        samples.append(before)
        while not samples[-1].done:
            if time.monotonic() - before.at > LONGEST:
                raise SystemExit(f"the transfers did not end within {LONGEST:g} s")
            await asyncio.sleep(EVERY)
            views = await client.transfers()
            samples.append(rig.sample(views))
            if not reasons and samples[-1].received > rig.size / 3:
                one, then = rig.sample(views), time.monotonic()
                said = await asyncio.gather(*(client.why(view.id) for view in views if not view.complete))
                kernel = (rig.sample(views).interface - one.interface) / (time.monotonic() - then)
                reasons = [(each.bound, sum(s.rate or 0.0 for s in said), kernel) for each in said]
    return samples, reasons


def compared(samples: list[FiguresSample], limit: int) -> dict[str, float]:
    """Each figure of the daemon in percent of what the interface shows."""
    first, last = samples[0], samples[-1]
    if last.at - first.at < 4 * EDGE:
        raise SystemExit(f"the run took {last.at - first.at:.1f} s, too short to compare: give --mb or --limit")
    middle = [s for s in samples if first.at + EDGE <= s.at <= last.at - EDGE]
    seconds, wire = middle[-1].at - middle[0].at, middle[-1].interface - middle[0].interface
    pairs = list(pairwise(middle))
    integral = sum(one.rate * (two.at - one.at) for one, two in pairs)
    alone = [s for s in middle if s.eta is not None]
    settled = [s for s in alone if s.at > alone[0].at + 2 * EDGE]
    errors = [(s.at + (s.eta or 0.0) - last.at) / (last.at - s.at) for s in settled]
    return {
        "bytes": 100 * (last.received - first.received) / (last.interface - first.interface),
        "rate": 100 * integral / wire,
        "limit": 100 * wire / (limit * seconds),
        "time left": 100 * (1 + median(errors)) if errors else 100.0,
    }


def _differs(name: str, percent: float, tolerance: float) -> bool:
    """The rest of a time left is measured in moments, so it may be three times as wrong."""
    return abs(percent) > (3 * tolerance if name == "time left" else tolerance)


def main(options: argparse.Namespace) -> None:
    """Run each mix, and print the comparison. Fails where a figure differs by more than the tolerance."""
    if reason := namespaces.unavailable():
        raise SystemExit(reason)
    wrong, machine = [], describe_machine()
    reports = {}
    for mix in options.mix or ["both"]:
        reports[mix] = report = _run(mix, options)
        wrong += [f"{mix}: {n}" for n, p in report["percent"].items() if _differs(n, p - 100, options.tolerance)]
    print(machine)
    write_json(options.json, {"rig": machine, "limit": options.limit, "mixes": reports})
    if wrong:
        raise SystemExit(f"more than {options.tolerance:g} % apart: {', '.join(wrong)}")


def _run(mix: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one mix, and print its comparison."""
    limit = int(options.limit * 1e6)
    with tempfile.TemporaryDirectory(prefix="bench-figures-") as place, ExitStack() as stack:
        rig = FiguresRig(Path(place), int(options.mb * 1e6), limit, mix, stack)
        samples, reasons = asyncio.run(watch(rig))
    found = compared(samples, limit)
    seconds = samples[-1].at - samples[0].at
    print(f"{mix}: {rig.size / 1e6:.0f} MB, limit {options.limit:g} MB/s: {seconds:.1f} s")
    for name, percent in found.items():
        print(f"{name:9} {percent:6.1f} % of what the interface shows")
    for bound, said, kernel in reasons:
        print(f"why: {bound}, {said / 1e6:.2f} MB/s together; the interface: {kernel / 1e6:.2f} MB/s")
    return {"bytes": rig.size, "seconds": seconds, "percent": found, "why": reasons}
