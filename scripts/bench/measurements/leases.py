"""The benchmark scripts/bench/leases: thousands of lease connections to one coordinator."""

import argparse
import asyncio
import hashlib
import os
import resource
import statistics
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import publish
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import HEARTBEAT, demand_text, lease_path, parse_message
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.merkle import tree_of
from p2pmodel.core.content.names import RepoId
from p2pmodel.swarm.torrents import Metainfo, build, layout_of, parse
from scripts.bench.rigs.machine import P2PMODEL, describe_machine, publish_token
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json

WANT = 4
"""Leases that a node asks for at a time."""
CONNECTING = 100
"""Nodes that connect at a time."""
GIVE_UP = 20.0
"""Multiples of the seeder's time after which a run ends."""


@dataclass(frozen=True, slots=True)
class LeaseSample:
    """One run: `ratio` of its seconds to those that the seeder needs; the coordinator's CPU time as a share of them,
    and in microseconds for each message of a node; its resident memory in MiB."""

    nodes: int
    seconds: float
    ratio: float
    core: float
    messages: int
    microseconds: float
    rss: float


def big_torrent(size: int) -> Metainfo:
    """The torrent of four files with `size` bytes together, which do not exist."""
    names = [f"model-{shard:05}.safetensors" for shard in range(4)]
    files = tuple(ManifestFile(name, size // len(names), _hex(name)[:40], _hex(name)) for name in names)
    manifest = Manifest(RepoId("bench/model"), _hex("commit")[:40], files)
    layout, root = layout_of(manifest), hashlib.sha256(b"a piece").digest()
    return parse(build(manifest, {s.path: tree_of([root] * len(s.pieces), layout.piece_length) for s in layout.spans}))


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(eq=False, slots=True)
class _Node:
    socket: aiohttp.ClientWebSocketResponse
    leased: set[int] = field(default_factory=set)


class _Nodes:
    """The nodes of one swarm: their connections, and what none of them has."""

    def __init__(self, metainfo: Metainfo, url: str, rate: float) -> None:
        self.messages = 0
        self._url = url + lease_path(metainfo.info_hash)
        self._count = metainfo.layout.piece_count
        self._gap = metainfo.layout.piece_length / rate
        self._scarce = (1 << self._count) - 1
        self._want = 0
        self._known = (0, -1, "")
        self._heartbeats = 1
        self._nodes: list[_Node] = []
        self._asked: deque[tuple[_Node, int]] = deque()
        self._came = asyncio.Event()

    async def connect(self, number: int, stack: AsyncExitStack) -> None:
        """Connect node `number`."""
        host = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        connector = aiohttp.TCPConnector(local_addr=(host, 0))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        peer = {"peer": f"{host}:6881", "id": str(number)}
        try:
            node = _Node(await stack.enter_async_context(session.ws_connect(self._url, params=peer)))
        except aiohttp.WSServerHandshakeError as error:
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            raise SystemExit(
                f"node {number} was refused with HTTP {error.status}: a coordinator admits a sixth of the {files} files"
                " that may be open here as connections"
            ) from None
        self._nodes.append(node)
        reading = asyncio.create_task(self._read(node))
        stack.callback(reading.cancel)
        await self._send(node)

    async def run(self, limit: float) -> float:
        """Deliver all pieces. Returns the seconds; SystemExit after `limit`."""
        beating = asyncio.create_task(self._beat())
        try:
            async with asyncio.timeout(limit):
                return await self._deliver()
        except TimeoutError:
            raise SystemExit(f"{self._scarce.bit_count()} pieces were not delivered within {limit:.0f} s") from None
        finally:
            beating.cancel()

    async def _deliver(self) -> float:
        self._want, began = WANT, time.monotonic()
        due = began
        while self._scarce:
            while not self._asked:
                self._came.clear()
                await self._came.wait()
            due = max(due, time.monotonic() - self._gap) + self._gap  # a seeder that waits does not catch up
            await asyncio.sleep(due - time.monotonic())
            node, piece = self._asked.popleft()
            node.leased.discard(piece)
            self._scarce &= ~(1 << piece)
            await self._send(node)
        return time.monotonic() - began

    async def _beat(self) -> None:
        """Each node's message of every heartbeat, or of every few as the coordinator says."""
        due = time.monotonic()
        while True:
            for node in self._nodes:
                due += HEARTBEAT * self._heartbeats / len(self._nodes)
                if (early := due - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                await self._send(node)
            due = max(due, time.monotonic() - HEARTBEAT)

    async def _send(self, node: _Node) -> None:
        self.messages += 1
        await node.socket.send_str(self._text(node))

    def _text(self, node: _Node) -> str:
        """The message of `node`; that of the many without leases is made once for each change."""
        state = self._scarce, self._want
        if node.leased or self._known[:2] != state:
            demand = Demand(self._scarce, from_seeders=True, want=self._want, leased=bits_of(node.leased))
            text = demand_text(demand, self._count)
            if node.leased:
                return text
            self._known = *state, text
        return self._known[2]

    async def _read(self, node: _Node) -> None:
        async for message in node.socket:
            found = parse_message(message.data)
            pieces, self._heartbeats = set(found.grant.pieces), found.heartbeats
            self._asked.extend((node, piece) for piece in sorted(pieces - node.leased) if self._scarce >> piece & 1)
            node.leased |= pieces
            self._came.set()


async def measure(coordinator: Program, url: str, metainfo: Metainfo, nodes: int, rate: float) -> LeaseSample:
    """One run with so many nodes."""
    bound = metainfo.layout.piece_count * metainfo.layout.piece_length / rate
    async with AsyncExitStack() as stack:
        swarm = _Nodes(metainfo, url, rate)
        for begin in range(0, nodes, CONNECTING):
            batch = range(begin, min(begin + CONNECTING, nodes))
            await asyncio.gather(*(swarm.connect(number, stack) for number in batch))
        await asyncio.sleep(2 * HEARTBEAT)
        sent, cpu = swarm.messages, coordinator.cost()
        seconds = await swarm.run(GIVE_UP * bound)
        sent, cpu = swarm.messages - sent, coordinator.cost() - cpu
        rss = coordinator.memory("VmRSS") / (1 << 20)
    return LeaseSample(nodes, seconds, seconds / bound, cpu / seconds, sent, cpu / sent * 1e6, rss)


def run(options: argparse.Namespace, cores: Sequence[int], place: Path) -> list[LeaseSample]:
    """All runs, each with a new coordinator."""
    metainfo, found = big_torrent(options.size_mb * 1_000_000), []
    token = publish_token(place)
    command = [*P2PMODEL, "coordinator", "--listen", "127.0.0.1:0", "--json", "-q", "--publish-token-file", str(token)]
    for nodes in [nodes for nodes in options.nodes for _ in range(options.runs)]:
        with ExitStack() as stack:
            program = Program(command, stack, env=os.environ | {"P2PMODEL_HTTP_MAX_CONNECTIONS": "65000"})
            os.sched_setaffinity(program.pid, {cores[0]})
            os.sched_setaffinity(0, set(cores[1:] or cores))
            url = program.first()["url"]
            asyncio.run(publish(Coordinator(url, publish_token=token.read_text().strip()), metainfo.raw))
            sample = asyncio.run(measure(program, url, metainfo, nodes, options.rate_mb * 1e6))
        found.append(sample)
        print(
            f"{nodes:6} nodes: {sample.ratio:5.2f} of the seeder's time, {sample.core:4.0%} of a core,"
            f" {sample.microseconds:4.0f} us a message, {sample.messages / sample.seconds:6.0f} messages/s,"
            f" {sample.rss:4.0f} MiB",
            flush=True,
        )
    return found


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        with TemporaryDirectory() as place:
            samples = run(options, cores, Path(place))
    finally:
        os.sched_setaffinity(0, cores)
    medians: dict[str, Any] = {}
    for nodes in options.nodes:
        rows = [asdict(sample) for sample in samples if sample.nodes == nodes]
        medians[str(nodes)] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    figures = {"rig": describe_machine(), "medians": medians, "runs": [asdict(sample) for sample in samples]}
    print(figures["rig"])
    write_json(options.json, figures)
