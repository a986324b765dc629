"""One run: every node starts, the gate opens, and the clock runs until the last node is complete."""

import json
import math
import random
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench.distribution.contestants import MIRROR_LOG, Contestant, Gate, RunSite, Sources
from scripts.bench.distribution.kills import Kill
from scripts.bench.rigs.cluster import Cluster, Host
from scripts.bench.rigs.programs import Program, stop_all
from scripts.bench.rigs.snapshots import total_size
from scripts.bench.rigs.wire_counters import received_from

JOIN_SECONDS = 90.0
"""Longest time that the gate is held for the last node; the nodes themselves wait 120 s."""
FIRST_BYTES = 64 << 10
"""Bytes sent by a source once content flows: the requests and answers before that are smaller."""
SAMPLE_SECONDS = 0.2
_TICK = 0.02
_REPORT_SECONDS = 0.7
"""Seconds within which a seeder's next progress report comes."""


@dataclass(frozen=True, slots=True)
class Testbed:
    """The hosts and the snapshot that all runs share. `size` is the snapshot's, in bytes."""

    cluster: Cluster
    seeder: Host
    mirror: Host
    coordinator: Host
    peers: list[Host]
    cache: Path
    size: int
    place: Path


@dataclass(slots=True)
class Node:
    """A node of the run. `ready` is the time it was complete; `spent` the CPU seconds of its killed processes."""

    host: Host
    home: Path
    program: Program
    ready: float | None = None
    received: int = 0
    spent: float = 0.0
    killed: bool = False
    failure: str = ""
    started_cost: float = 0.0
    memory: int = 0

    def cost(self) -> float:
        """CPU seconds of its processes so far."""
        return self.spent + self.program.cost()


@dataclass(slots=True)
class Clock:
    """The times of the run (monotonic seconds), and the number of nodes at the gate."""

    started: float
    opened: float = 0.0
    first_byte: float | None = None
    joined: int = 0


@dataclass(slots=True)
class Timeline:
    """Bytes that each host had sent and received since the gate opened, every `SAMPLE_SECONDS`."""

    times: list[float] = field(default_factory=list)
    traffic: list[dict[str, tuple[int, int]]] = field(default_factory=list)


class SwarmRun:
    """One run of one contestant."""

    def __init__(self, testbed: Testbed, contestant: Contestant, kill: Kill | None, limit: float, dice: int) -> None:
        self._testbed = testbed
        self._contestant = contestant
        self._kill = kill
        self._limit = limit
        self._dice = random.Random(dice)
        self._nodes: list[Node] = []
        self._base: dict[str, tuple[int, int]] = {}
        self._outside: dict[str, int] = {}
        self._restarts: list[tuple[float, str, Node | None]] = []
        self.timeline = Timeline()

    def run(self) -> dict[str, Any]:
        """Run, and return every figure. No process or file is left afterwards."""
        with ExitStack() as stack:
            place = Path(tempfile.mkdtemp(prefix="run-", dir=self._testbed.place))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            testbed = self._testbed
            site = RunSite(testbed.seeder, testbed.mirror, testbed.coordinator, testbed.cache, place, stack)
            sources = self._contestant.sources(site)
            clock = self._join(site, sources)
            busy, neighbours = _busy(), testbed.cluster.neighbours()
            self._watch(site, sources, clock)
            found = self._figures(clock, busy)
            found["neighbours"] = max(neighbours, testbed.cluster.neighbours())
            found["seeder_says"] = _reported(sources) / self._testbed.size
            found["mirror_says"] = _logged(place / MIRROR_LOG) / self._testbed.size
            stop_all(node.program for node in self._nodes)
            self._check(found)
            return found

    # -- the start -------------------------------------------------------------------------------------------

    def _join(self, site: RunSite, sources: Sources) -> Clock:
        """Start all nodes before a held gate, and open it once all have connected."""
        gate = sources.gate
        gate.program.signal(signal.SIGSTOP)
        clock = Clock(time.monotonic())
        for host in self._testbed.peers:
            home = site.place / host.name
            self._nodes.append(Node(host, home, self._contestant.start(site, host, home)))
        deadline = clock.started + JOIN_SECONDS
        while clock.joined < len(self._nodes) and time.monotonic() < deadline:
            time.sleep(_TICK)
            clock.joined = _connected(gate)
        self._base = self._testbed.cluster.traffic()
        self._outside = self._from_outside()
        for node in self._nodes:
            node.started_cost = node.cost()
        clock.opened = time.monotonic()
        gate.program.signal(signal.SIGCONT)
        return clock

    # -- the transfer ----------------------------------------------------------------------------------------

    def _watch(self, site: RunSite, sources: Sources, clock: Clock) -> None:
        deadline = clock.opened + self._limit
        next_sample = clock.opened
        while self._pending() and time.monotonic() < deadline:
            now = time.monotonic()
            traffic = self._traffic()
            if clock.first_byte is None and self._content_left(traffic):
                clock.first_byte = now
            if now >= next_sample:
                self._sample(now - clock.opened, traffic)
                next_sample += SAMPLE_SECONDS
            self._record_ready(traffic)
            self._maybe_kill(sources, traffic, now)
            self._restart(site, sources, now)
            time.sleep(_TICK)
        self._sample(time.monotonic() - clock.opened, self._traffic())

    def _pending(self) -> bool:
        restarting = bool(self._restarts)
        return restarting or any(n.ready is None and not n.failure and not n.killed for n in self._nodes)

    def _traffic(self) -> dict[str, tuple[int, int]]:
        now, base = self._testbed.cluster.traffic(), self._base
        return {name: (sent - base[name][0], got - base[name][1]) for name, (sent, got) in now.items() if name in base}

    def _sample(self, seconds: float, traffic: dict[str, tuple[int, int]]) -> None:
        for node in self._nodes:
            node.memory = max(node.memory, node.program.memory())
        self.timeline.times.append(seconds)
        self.timeline.traffic.append(traffic)

    def _content_left(self, traffic: dict[str, tuple[int, int]]) -> bool:
        return any(traffic[host.name][0] >= FIRST_BYTES for host in (self._testbed.seeder, self._testbed.mirror))

    def _record_ready(self, traffic: dict[str, tuple[int, int]]) -> None:
        for node in self._nodes:
            if node.ready is not None or node.killed or node.failure:
                continue
            node.ready = _ready_at(self._contestant, node)
            if node.ready is not None:
                node.received = traffic[node.host.name][1]
            elif node.program.ended and node.program.exit_code != 0:
                node.failure = node.program.last_error()

    # -- kills -----------------------------------------------------------------------------------------------

    def _maybe_kill(self, sources: Sources, traffic: dict[str, tuple[int, int]], now: float) -> None:
        if self._kill is None or self._kill.done:
            return
        size = self._testbed.size
        got = sum(min(size, traffic[node.host.name][1]) for node in self._nodes)
        if got < self._kill.at * size * len(self._nodes):
            return
        self._kill.done = True
        for role in self._kill.roles:
            if role not in sources.programs:
                raise SystemExit(f"this run has no {role} to kill")
            sources.programs[role].signal(signal.SIGKILL)
            self._plan_restart(now, role, None)
        unfinished = [node for node in self._nodes if node.ready is None]
        dying = min(len(unfinished), round(self._kill.peers * len(self._nodes)))
        for node in self._dice.sample(unfinished, dying):
            node.spent += node.program.cost()
            node.program.signal(signal.SIGKILL)
            node.killed = True
            self._plan_restart(now, "peer", node)

    def _plan_restart(self, now: float, role: str, node: Node | None) -> None:
        if self._kill is not None and self._kill.restart is not None:
            self._restarts.append((now + self._kill.restart, role, node))

    def _restart(self, site: RunSite, sources: Sources, now: float) -> None:
        """Start the processes that are due, without waiting until they serve."""
        due = [each for each in self._restarts if each[0] <= now]
        self._restarts = [each for each in self._restarts if each[0] > now]
        for _when, role, node in due:
            if node is None:
                sources.programs[role] = sources.again[role]()
            else:
                node.program = self._contestant.start(site, node.host, node.home)
                node.killed = False

    # -- the figures -----------------------------------------------------------------------------------------

    def _figures(self, clock: Clock, busy: tuple[float, float]) -> dict[str, Any]:
        size, last = self._testbed.size, self.timeline.traffic[-1]
        outside = self._from_outside()
        times = {node.host.name: node.ready - clock.opened for node in self._nodes if node.ready is not None}
        spent = sum(node.cost() - node.started_cost for node in self._nodes)
        received = [node.received for node in self._nodes if node.ready is not None]
        busy_now = _busy()
        return {
            "nodes": len(self._nodes),
            "joined": clock.joined,
            "ready": sorted(times.values()),
            "ready_by_node": times,
            "quick_last": self._quick_last(times),
            "killed": sum(node.killed for node in self._nodes),
            "failures": [f"{node.host.name}: {node.failure}" for node in self._nodes if node.failure],
            "unfinished": sum(n.ready is None and not n.killed and not n.failure for n in self._nodes),
            "start_seconds": clock.opened - clock.started,
            "first_byte_seconds": (clock.first_byte or clock.opened) - clock.opened,
            "seeder_sent": last[self._testbed.seeder.name][0] / size,
            "mirror_sent": last[self._testbed.mirror.name][0] / size,
            "crossed": max((outside[zone] - self._outside[zone]) / size for zone in outside) if outside else 0.0,
            "received": sum(received) / len(received) / size if received else 0.0,
            "received_most": max(received, default=0) / size,
            "cpu_seconds_per_gb": spent / (len(self._nodes) * size / 1e9),
            "cpu_start_seconds": sum(node.started_cost for node in self._nodes) / len(self._nodes),
            "memory": max(node.memory for node in self._nodes),
            "machine_busy": (busy_now[0] - busy[0]) / max(busy_now[1] - busy[1], 1e-9),
        }

    def _from_outside(self) -> dict[str, int]:
        """Bytes on the wire into each zone so far."""
        found: dict[str, int] = {}
        for host in (each for each in self._testbed.peers if each.zone):
            found[host.zone] = found.get(host.zone, 0) + received_from(host)
        return found

    def _quick_last(self, times: dict[str, float]) -> float:
        """Seconds until the last node with the widest link was complete."""
        widest = max(host.link.down for host in self._testbed.peers if host.link)
        quick = [host.name for host in self._testbed.peers if host.link and host.link.down == widest]
        return max(times.get(name, math.inf) for name in quick)

    def _check(self, found: dict[str, Any]) -> None:
        """A node that reported itself complete must hold that many bytes."""
        for node in self._nodes:
            if node.ready is not None and (here := total_size(node.home)) < self._testbed.size:
                found["failures"].append(f"{node.host.name}: complete, with {here} of {self._testbed.size} bytes")


def _ready_at(contestant: Contestant, node: Node) -> float | None:
    if contestant.sign == "line":
        return node.program.lines[0][0] if node.program.lines else None
    if contestant.sign == "mark":
        return time.monotonic() if (node.home / "complete").exists() else None
    return time.monotonic() if node.program.exit_code == 0 else None


def _connected(gate: Gate) -> int:
    """Number of hosts with a connection to the gate's port."""
    port = f":{gate.port:04X}"
    hosts = set()
    for line in Path(f"/proc/{gate.program.pid}/net/tcp").read_text().splitlines()[1:]:
        _number, local, remote, state, *_rest = line.split()
        if local.endswith(port) and state == "01" and remote.partition(":")[0] != local.partition(":")[0]:
            hosts.add(remote.partition(":")[0])
    return len(hosts)


def _reported(sources: Sources) -> float:
    """Bytes of content that the seeder sent, by its own report; 0 without one."""
    seeder = sources.programs.get("seeder")
    time.sleep(_REPORT_SECONDS)
    return float(seeder.progress().get("uploaded", 0)) if seeder else 0.0


def _logged(log: Path) -> int:
    """Bytes of content that the mirror sent, by its own log."""
    entries = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    return sum(entry["bytes"] for entry in entries if "/resolve/" in entry["path"])


def _busy() -> tuple[float, float]:
    """Busy ticks of this machine's cores, and all ticks."""
    ticks = [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
