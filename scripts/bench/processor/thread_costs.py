"""CPU seconds of a process by thread, and what each thread is for."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOOP, NETWORK = "event loop", "engine network"
WORKERS, DISK, HASHES = "workers", "engine disk", "engine hashes"
ROLES = (LOOP, NETWORK, HASHES, DISK, WORKERS)
UNDIVIDED = (LOOP, NETWORK)
"""Roles of a single thread each."""
SAMPLE_EVERY = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ThreadCost:
    """CPU seconds of one thread so far."""

    role: str
    user: float
    system: float

    @property
    def seconds(self) -> float:
        return self.user + self.system

    def since(self, earlier: "ThreadCost | None") -> "ThreadCost":
        """What it took after `earlier`."""
        if earlier is None:
            return self
        return ThreadCost(self.role, self.user - earlier.user, self.system - earlier.system)


@dataclass(frozen=True, slots=True)
class RoleCost:
    """CPU seconds of all threads of one role, and of the busiest of them."""

    seconds: float = 0.0
    busiest: float = 0.0


def network_name(thread: int) -> str:
    """The name of the engine's network thread with the id `thread`. Its children inherit the name, not the id."""
    return f"net-{thread}"


def role_of(thread: int, process: int, name: str, *, user: float, system: float) -> str:
    """What a thread is for. The engine's threads for the disk have no name: those that hash call the kernel rarely."""
    if thread == process:
        return LOOP
    if name == network_name(thread):
        return NETWORK
    if name.startswith(("asyncio_", "p2pmodel-")):
        return WORKERS
    return HASHES if user > system else DISK


Threads = Mapping[int, ThreadCost]


def threads_of(pid: int) -> dict[int, ThreadCost]:
    """The threads that the process has now; none once it has ended."""
    found: dict[int, ThreadCost] = {}
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return found
    for task in tasks:
        try:
            name, fields = (task / "stat").read_text().partition("(")[2].rsplit(")", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        user, system = (int(ticks) / _TICKS for ticks in fields.split()[11:13])
        thread = int(task.name)
        found[thread] = ThreadCost(role_of(thread, pid, name, user=user, system=system), user, system)
    return found


def by_role(after: Threads, before: Threads) -> dict[str, RoleCost]:
    """The cost of each role between two readings."""
    found: dict[str, RoleCost] = {}
    for number, cost in after.items():
        spent = cost.since(before.get(number))
        sofar = found.get(spent.role, RoleCost())
        found[spent.role] = RoleCost(sofar.seconds + spent.seconds, max(sofar.busiest, spent.seconds))
    return found


def ceiling(busiest: Mapping[str, float]) -> float:
    """GB/s that a process reaches at most on enough cores, by the CPU-seconds a GB of the busiest thread of each role:
    the work of some threads cannot be divided."""
    most = max((busiest.get(role, 0.0) for role in UNDIVIDED), default=0.0)
    return 1 / most if most > 0 else 0.0


class ThreadWatch:
    """Reads the threads of a process until it ends; a thread that ends keeps what it took."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.seen: dict[int, ThreadCost] = {}
        """The threads so far."""
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> Threads:
        """All threads that it had."""
        self._ended.set()
        self._reader.join()
        return self.seen

    def _read(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY):
            self.seen |= threads_of(self._pid)
