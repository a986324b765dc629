"""The benchmark scripts/bench/rollout: what a roll-out of many nodes costs the coordinator."""

import argparse
import asyncio
import os
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import publish
from p2pmodel.coordinator.client.rollouts import RolloutClient
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import HEARTBEAT, demand_text, lease_path
from p2pmodel.coordinator.rollout.report import rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutSpec, RolloutView
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest, ManifestFile, lfs_pointer_oid
from p2pmodel.core.content.merkle import tree_of
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.network.egress import Egress
from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.tasks import companions
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.rollout.own_state import numbers_of, standing_of_progress
from p2pmodel.node.rollout.reports import RolloutReports
from p2pmodel.swarm.torrents import Metainfo, build, parse
from scripts.bench.rigs.machine import P2PMODEL, describe_machine
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json

ADDRESSES = 16
"""Loopback addresses that the nodes have: a coordinator bounds the connections of one address."""
WAIT = 600.0
"""Seconds in which all nodes must be in the report once the last of them is ready."""


def torrent_with(pieces: int) -> Metainfo:
    """A torrent of one file. No node downloads it, so its hashes are invented."""
    length = piece_length_for(pieces << 20)
    size = pieces * length
    digest = secrets.token_hex(32)
    file = ManifestFile("model.safetensors", size, lfs_pointer_oid(digest, size), digest)
    manifest = Manifest(RepoId("bench/model"), secrets.token_hex(20), (file,))
    roots = [secrets.token_bytes(32) for _ in range(pieces)]
    return parse(build(manifest, {file.path: tree_of(roots, length)}))


class AddressPool(HttpPool):
    """Connections from one loopback address."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._connector: aiohttp.TCPConnector | None = None

    def connector(self, egress: Egress | None = None) -> aiohttp.TCPConnector:  # noqa: ARG002
        """The connector."""
        if self._connector is None:
            self._connector = aiohttp.TCPConnector(limit=0, local_addr=(self._address, 0))
        return self._connector

    async def __aexit__(self, *exc_info: object) -> None:
        if self._connector is not None:
            await self._connector.close()


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    """One node: its name, its torrent, the coordinator, and its connections."""

    name: str
    metainfo: Metainfo
    coordinator: Coordinator
    pool: AddressPool
    sent: list[int]
    """One entry for each message of all nodes."""

    async def run(self, begin: float, seconds: float) -> None:
        """Download for `seconds`, from `begin` on, and report it."""
        manifest = self.metainfo.manifest
        await asyncio.sleep(begin)
        reports = RolloutReports(lambda: [self.coordinator], self.name, http=self.pool)
        state = Progress("downloading", total=manifest.total_size, peers=50)
        async with companions() as start:
            start(reports.run())
            reports.update(manifest.repo, manifest.commit, standing_of_progress(replace(state, phase="checking")))
            state = await self._download(state, seconds, reports)
            reports.update(manifest.repo, manifest.commit, standing_of_progress(state, complete=True))
            await reports.last_words(may_be_open=True, on_wait=lambda: None)

    async def _download(self, state: Progress, seconds: float, reports: RolloutReports) -> Progress:
        manifest, total = self.metainfo.manifest, self.metainfo.manifest.total_size
        query = {"peer": f"127.0.0.1:{random.randrange(1, 65536)}", "id": self.name, "node": self.name}
        url = f"{self.coordinator.url}{lease_path(self.metainfo.info_hash)}"
        session = aiohttp.ClientSession(connector=self.pool.connector(), connector_owner=False)
        began = time.monotonic()
        async with session, session.ws_connect(url, params=query, headers=self.coordinator.headers) as socket:
            while (spent := time.monotonic() - began) < seconds:
                done = int(total * spent / seconds)
                state = replace(state, done=done, from_peers=done, download_rate=int(total / seconds))
                reports.update(manifest.repo, manifest.commit, standing_of_progress(state))
                demand = Demand(0, from_seeders=True, want=0)
                await socket.send_str(demand_text(demand, self.metainfo.layout.piece_count, numbers_of(state)))
                self.sent.append(1)
                await asyncio.sleep(HEARTBEAT)
        return replace(state, done=total, from_peers=total)


@dataclass(frozen=True, slots=True)
class RolloutCost:
    """The coordinator's CPU seconds and growth of memory, in bytes, during one run; `messages` over the connections
    for leases, and `events`: states that a watching client got."""

    seconds: float
    cpu: float
    memory: int
    messages: int
    events: int
    view: RolloutView | None

    def plain(self) -> dict[str, float]:
        """The figures."""
        return {
            "seconds": round(self.seconds, 1),
            "cpu": round(self.cpu, 2),
            "memory": self.memory,
            "messages": self.messages,
            "events": self.events,
        }


async def measure(
    program: Program, coordinator: Coordinator, options: argparse.Namespace, *, rolled: bool
) -> RolloutCost:
    """All nodes, with a roll-out or without."""
    metainfo = await asyncio.to_thread(torrent_with, options.pieces)
    await publish(coordinator, metainfo.raw)
    names = [f"gpu{number:05}" for number in range(options.nodes)]
    client, watching = RolloutClient(coordinator, timeout=60.0), None
    if rolled:
        manifest = metainfo.manifest
        made = await client.create(RolloutSpec(manifest.repo, manifest.commit, tuple(names), deadline=3600.0))
        watching = asyncio.create_task(_watch(client, made.id))
    cpu, memory, began = program.cost(), program.memory("VmRSS"), time.monotonic()
    sent: list[int] = []
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(AddressPool(f"127.0.7.{n + 1}")) for n in range(ADDRESSES)]
        nodes = (SimulatedNode(name, metainfo, coordinator, pools[n % ADDRESSES], sent) for n, name in enumerate(names))
        await asyncio.gather(*(node.run(random.uniform(0, options.spread), options.seconds) for node in nodes))
        seconds, cpu = time.monotonic() - began, program.cost() - cpu
        grown = program.memory("VmRSS") - memory
    async with asyncio.timeout(WAIT):
        events, view = await watching if watching else (0, None)
    return RolloutCost(seconds, cpu, grown, len(sent), events, view)


async def _watch(client: RolloutClient, ident: str) -> tuple[int, RolloutView]:
    events = 0
    async for view in client.watch(ident):
        events += 1
        last = view
    return events, last


@asynccontextmanager
async def coordinator_program(folder: Path) -> AsyncIterator[tuple[Program, Coordinator]]:
    """A coordinator of its own process, with the token of a publisher."""
    token = folder / "bench.token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16))
    command = [
        *P2PMODEL,
        "coordinator",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        str(folder / "state"),
        "--json",
        "-q",
    ]
    env = os.environ | {"P2PMODEL_HTTP_MAX_CONNECTIONS": "16384"}
    with ExitStack() as stack:
        program = Program([*command, "--publish-token-file", str(token)], stack, env=env)
        first = await asyncio.to_thread(program.first)
        yield program, Coordinator(first["url"], publish_token=token.read_text())


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Both runs; the figures."""
    costs = {}
    for name, rolled in (("without", False), ("with", True)):
        with tempfile.TemporaryDirectory(prefix="p2pmodel-bench-") as folder:
            async with coordinator_program(Path(folder)) as (program, coordinator):
                costs[name] = await measure(program, coordinator, options, rolled=rolled)
                if view := costs[name].view:
                    size = (Path(folder) / "state/rollouts" / f"{view.id}.json").stat().st_size
    view = costs["with"].view
    assert view is not None
    report = rollout_report(view)
    figures: dict[str, object] = {"rig": describe_machine(), "nodes": options.nodes, "state": view.state}
    figures |= {name: cost.plain() for name, cost in costs.items()}
    return figures | {"passed": report.last_gate.passed, "unlisted": len(report.unlisted), "file": size}


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json."""
    figures = asyncio.run(run(options))
    print(f"{options.nodes} nodes, {options.seconds:g} s of download each, begun within {options.spread:g} s")
    for name in ("without", "with"):
        plain: dict[str, float] = figures[name]  # type: ignore[assignment]
        share = plain["cpu"] / plain["seconds"]
        print(
            f"{name:8} a roll-out  {plain['cpu']:7.2f} CPU s in {plain['seconds']:6.1f} s ({share:.1%} of a core), "
            f"{plain['cpu'] / plain['messages'] * 1e6:.0f} us a message   "
            f"{plain['memory'] / 1e6:6.1f} MB more memory"
        )
    passed, state = figures["passed"], figures["state"]
    print(f"{passed} of {options.nodes} nodes in the report, state {state}; file {figures['file']} B")
    print(figures["rig"])
    write_json(options.json, figures)
