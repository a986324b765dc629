"""How many announces `p2pmodel coordinator` answers on one core, and what a listed peer costs in memory.

The tracker is a process of its own, held to one core; this process announces as libtorrent does, over keep-alive
connections on loopback, from another one where there is one. First every peer joins, then all announce again, some as
downloaders that got something and some as seeders. `of the core` is announces per second of the tracker's own CPU time,
which other work on the machine does not change much.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes

from scripts.bench.rigs.machine import rig

HASH = quote_from_bytes(bytes(range(200, 220)))
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Served:
    """One run of announces: how many, the seconds they took, and the tracker's CPU seconds."""

    announces: int
    seconds: float
    cpu: float

    def plain(self) -> dict[str, float]:
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
    asked = (
        f"{zone}info_hash={HASH}&peer_id={peer_id}&port=6881&uploaded=0&downloaded=0&left={left}&corrupt=0"
        f"&key={number:08X}{event}&numwant=200&compact=1&no_peer_id=1&supportcrypto=1&redundant=0&ip={address}"
    )
    return f"GET /announce?{asked} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: libtorrent/2.1\r\n\r\n".encode()


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


@contextmanager
def tracker(core: int) -> Iterator[tuple[int, int]]:
    """A tracker on one core; its process id and its port."""
    command = [sys.executable, "-m", "p2pmodel", "coordinator", "--listen", "127.0.0.1:0", "--json", "-q"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        os.sched_setaffinity(process.pid, {core})
        assert process.stdout is not None
        yield process.pid, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(pid: int, port: int, requests: Sequence[bytes], connections: int) -> Served:
    cpu, began = cpu_seconds(pid), time.perf_counter()
    asyncio.run(announce(port, requests, connections))
    return Served(len(requests), time.perf_counter() - began, max(cpu_seconds(pid) - cpu, 1 / TICKS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--announces", type=int, default=20_000, help="announces after every peer has joined")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--zones", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    flags = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tracker(cores[0]) as (pid, port):
        os.sched_setaffinity(0, set(cores[1:] or cores))
        joins = [query(number, flags.zones) for number in range(flags.peers)]
        first = flags.peers // 5  # they fill what the process has from its start
        early = measure(pid, port, joins[:first], flags.connections)
        before = resident(pid)
        later = [query(n % flags.peers, flags.zones, again=1 + n // flags.peers) for n in range(flags.announces)]
        rest = measure(pid, port, joins[first:], flags.connections)
        memory = (resident(pid) - before) / (flags.peers - first)
        joined = Served(flags.peers, early.seconds + rest.seconds, early.cpu + rest.cpu)
        regular = measure(pid, port, later, flags.connections)
        after = (resident(pid) - before) / (flags.peers - first)
    for name, served in (("joining", joined), ("again", regular)):
        plain = served.plain()
        print(f"{name:8} {plain['per_second']:6} announces/s   {plain['per_cpu_second']:6} a second of the core")
    print(
        f"memory   {memory:.0f} bytes a peer once all have joined, {after:.0f} after the rest, at {flags.peers} peers"
    )
    os.sched_setaffinity(0, cores)
    figures = {
        "rig": rig(),
        "peers": flags.peers,
        "zones": flags.zones,
        "joining": joined.plain(),
        "again": regular.plain(),
        "bytes_a_peer": round(memory),
        "bytes_a_peer_later": round(after),
    }
    print(figures["rig"])
    print(json.dumps(figures))
    if flags.json:
        flags.json.write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
