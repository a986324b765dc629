"""Roll-outs: seconds, copies from the mirror, and the memory of the launcher."""

import argparse
import asyncio
import json
import resource
import time
from collections.abc import Sequence
from typing import Any

from p2pmodel.cli.cluster.bootstrap_screen import QuietScreen
from p2pmodel.cluster.bootstrap.bootstrap import Bootstrap
from p2pmodel.cluster.bootstrap.plan import BootstrapPlan, CoordinatorPlace
from p2pmodel.cluster.launcher import Completed
from p2pmodel.cluster.launchers.memory import MemoryHost, MemoryLauncher
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Credentials
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.http.server import serving
from scripts.bench.measurements import bootstrap_faults
from scripts.bench.rigs.machine import describe_machine
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.roll_outs import roll_outs

MEMBER, PUBLISHER = "m" * 16, "p" * 16
LOOKS = 20
"""Looks after which a simulated host is ready."""


def main(options: argparse.Namespace) -> None:
    """Measure, and print the figures."""
    if options.simulate:
        found = asyncio.run(_simulated(options.simulate))
    elif options.load:
        from scripts.bench.measurements.bootstrap_load import measure  # noqa: PLC0415 - imports torch

        found = measure(options.hosts, options.size_mb)
    elif options.faults:
        found = bootstrap_faults.measure(options.size_mb, options.timeout)
    else:
        found = _real(options)
    for name, value in found.items():
        print(f"{name:>28}: {value}")
    machine = describe_machine()
    print(machine)
    write_json(options.json, {"rig": machine, **found})
    if found.get("faults"):
        raise SystemExit(f"bootstrap: {'; '.join(found['faults'])}")


async def _simulated(count: int) -> dict[str, Any]:
    ref = Reference(RepoId("org/model"), "c" * 40)
    manifest = Manifest(ref.repo, ref.revision, (ManifestFile("model.safetensors", 1000, "a" * 40, "b" * 64),))
    hosts = [MemoryHost(f"gpu{number:04d}") for number in range(count)]
    for host in hosts:
        host.programs["p2pmodel"] = _doctor
        host.daemon.rounds = LOOKS
    launcher = MemoryLauncher(*hosts)
    credentials = Credentials(member=MEMBER, publishers={"bench": PUBLISHER})
    async with serving(coordinator_app(Tracker(), Catalog(), credentials=credentials), "127.0.0.1", 0) as url:
        names, place = tuple(host.name for host in hosts), CoordinatorPlace(url=url)
        plan = BootstrapPlan(ref, manifest, names, place, seeders=0)
        coordinator = Coordinator(url, MEMBER, PUBLISHER)
        first, ready = await _timed(plan, launcher, coordinator)
        again, _ = await _timed(plan, launcher, coordinator)
    return {
        "simulated hosts": count,
        "ready": ready,
        "seconds, first run": round(first, 2),
        "seconds, second run": round(again, 2),
        "connected at a time": launcher.most,
        "peak memory, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
    }


async def _timed(plan: BootstrapPlan, launcher: MemoryLauncher, coordinator: Coordinator) -> tuple[float, int]:
    began = time.monotonic()
    roster = await Bootstrap(plan, launcher, QuietScreen(), coordinator).run()
    return time.monotonic() - began, len(roster.done)


def _doctor(_command: Sequence[str], _stdin: bytes) -> Completed:
    node = {"link": None, "mirrors": [], "apart": ""}
    plain = {"seconds": 1.0, "snapshot": {"missing": 1000, "staged": 0}, "checks": [], "node": node}
    return Completed(0, json.dumps(plain).encode(), b"")


def _real(options: argparse.Namespace) -> dict[str, Any]:
    count, size_mb, mbit = options.hosts, options.size_mb, options.mbit
    with roll_outs(count, None, size_mb, mbit, options.mirror_mbit) as rig:
        preflight = rig.bootstrap("--dry-run")
        first = rig.bootstrap("--seeders", str(options.seeders))
        print(first.err)
        again = rig.bootstrap()
        down = rig.bootstrap("--down")
        spent = {stage: round(seconds, 2) for stage, seconds in first.json["stages"].items()}
        slowest = max(node["seconds"] for node in first.json["nodes"].values())
        last = first.json["rollout"]["gates"][0]["last"]
        return {
            "hosts": count,
            "snapshot, MiB": size_mb,
            "exit codes": [preflight.code, first.code, again.code, down.code],
            "ready": first.json["ready"],
            "seconds, preflight": round(preflight.json["seconds"], 2),
            "seconds, first run": round(first.json["seconds"], 2),
            "of that": spent,
            "until all daemons serve": round(sum(spent[s] for s in ("preflight", "coordinator", "daemons")), 2),
            "fetch of the last host": round(slowest, 2),
            "seconds, second run": round(again.json["seconds"], 2),
            "second run changed": again.json["changed"],
            "copies from the mirror": round(rig.copies, 4),
            "Mbit/s of each link": mbit or "no limit",
            "Mbit/s of the mirror's link": options.mirror_mbit or "no limit",
            "the links allow": _allowed(rig.size, mbit, options.mirror_mbit, last),
            "T*": first.json["rollout"]["bound"],
        }


def _allowed(size: int, mbit: float, mirror_mbit: float, last: float | None) -> str:
    """The time that the slowest link of the rig needs for one copy, and the last host's time in multiples of it."""
    rates = [each for each in (mbit, mirror_mbit) if each]
    if not rates or last is None:
        return "no link has a limit"
    seconds = size * 8 / 1e6 / min(rates)
    return f"{seconds:.1f} s; the last host {last:.1f} s, {last / seconds:.2f} times that"
