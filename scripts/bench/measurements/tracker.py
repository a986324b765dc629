"""The benchmark scripts/bench/tracker: announces per second of one core, and memory per peer."""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from scripts.bench.rigs.machine import P2PMODEL, describe_machine
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json

HASH = quote_from_bytes(bytes(range(200, 220)))
TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class TrackerSample:
    """One run of announces: their number, the seconds they took, and the tracker's CPU seconds."""

    announces: int
    seconds: float
    cpu: float

    def plain(self) -> dict[str, float]:
        """The sample as rates."""
        return {
            "announces": self.announces,
            "per_second": round(self.announces / self.seconds),
            "per_cpu_second": round(self.announces / self.cpu),
        }


def query(number: int, zones: int, *, again: int = 0) -> bytes:
    """The request of peer `number`: its first announce, or a later one."""
    left = 0 if number % 10 == 0 else 10**9 - again
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    zone = f"zone=rack{number % zones}&" if zones > 1 else ""
    event = "" if again else "&event=started"
    peer_id = quote_from_bytes(b"-LT2110-" + number.to_bytes(12, "big"))
    fields = (
        f"{zone}info_hash={HASH}&peer_id={peer_id}&port=6881&uploaded=0&downloaded=0&left={left}&corrupt=0"
        f"&key={number:08X}{event}&numwant=200&compact=1&no_peer_id=1&supportcrypto=1&redundant=0&ip={address}"
    )
    return f"GET /announce?{fields} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: libtorrent/2.1\r\n\r\n".encode()


async def announce(port: int, requests: Sequence[bytes], connections: int) -> None:
    """Send all of `requests`, one after the other on each connection."""
    waiting = iter(requests)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            assert b"failure reason" not in body, body
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))


def measure(tracker: Program, port: int, requests: Sequence[bytes], connections: int) -> TrackerSample:
    """Send `requests` to the tracker."""
    cpu, began = tracker.cost(), time.perf_counter()
    asyncio.run(announce(port, requests, connections))
    return TrackerSample(len(requests), time.perf_counter() - began, max(tracker.cost() - cpu, TICK))


def run(options: argparse.Namespace, cores: Sequence[int], stack: ExitStack) -> dict[str, object]:
    """All announces; the figures."""
    command = [*P2PMODEL, "coordinator", "--listen", "127.0.0.1:0", "--json", "-q"]
    # The peers announce from loopback, each with an address of its own in `ip=`.
    env = os.environ | {"P2PMODEL_TRACKER_IP_FROM": "127.0.0.0/8", "P2PMODEL_TRACKER_PROBE_PEERS": "false"}
    tracker = Program(command, stack, env=env)
    os.sched_setaffinity(tracker.pid, {cores[0]})
    port = int(tracker.first()["url"].rpartition(":")[2])
    os.sched_setaffinity(0, set(cores[1:] or cores))
    joins = [query(number, options.zones) for number in range(options.peers)]
    first = options.peers // 5  # these fill the memory that the process has from its start
    early = measure(tracker, port, joins[:first], options.connections)
    before = tracker.memory("VmRSS")
    later = [query(n % options.peers, options.zones, again=1 + n // options.peers) for n in range(options.announces)]
    rest = measure(tracker, port, joins[first:], options.connections)
    memory = (tracker.memory("VmRSS") - before) / (options.peers - first)
    joined = TrackerSample(options.peers, early.seconds + rest.seconds, early.cpu + rest.cpu)
    regular = measure(tracker, port, later, options.connections)
    after = (tracker.memory("VmRSS") - before) / (options.peers - first)
    return {
        "peers": options.peers,
        "zones": options.zones,
        "joining": joined.plain(),
        "again": regular.plain(),
        "bytes_a_peer": round(memory),
        "bytes_a_peer_later": round(after),
    }


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        with ExitStack() as stack:
            figures = run(options, cores, stack)
    finally:
        os.sched_setaffinity(0, cores)
    figures = {"rig": describe_machine()} | figures
    for name in ("joining", "again"):
        plain: dict[str, float] = figures[name]  # type: ignore[assignment]
        print(f"{name:8} {plain['per_second']:6} announces/s   {plain['per_cpu_second']:6} a second of the core")
    memory, after = figures["bytes_a_peer"], figures["bytes_a_peer_later"]
    print(f"memory   {memory} bytes a peer once all have joined, {after} after the rest, at {options.peers} peers")
    print(figures["rig"])
    print(json.dumps(figures))
    write_json(options.json, figures)
