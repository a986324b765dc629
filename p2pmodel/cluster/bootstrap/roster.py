"""The hosts of one bootstrap: how far each is, and why it failed. The time of each stage, and one step on many hosts.

One task owns them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from p2pmodel.cluster.bootstrap.plan import Stage
from p2pmodel.cluster.launcher import HostLook, Launcher, RemoteHost
from p2pmodel.cluster.preflight.checks import OVERHEAD, DoctorCheck
from p2pmodel.coordinator.rollout.links import LinkRate, together
from p2pmodel.coordinator.rollout.nodes import RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.core.progress.views import TransferView
from p2pmodel.errors import P2PModelError, Unavailable

StageName = Literal["preflight", "coordinator", "daemons", "ports", "mirroring", "fetching"]
"""In this order. `coordinator`: until it is started; `daemons`: until it and all daemons answer; `fetching` includes
the load, and the start of the command."""


class StageClock:
    """The stages so far, one after the other; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._stage: StageName | None = None
        self._spent: dict[StageName, float] = {}

    def enter(self, stage: StageName) -> None:
        """`stage` begins, and the one before has ended."""
        self._spent = self.seconds
        self._stage, self._since = stage, self._clock()

    @property
    def seconds(self) -> dict[StageName, float]:
        """Seconds of each stage that has begun."""
        if self._stage is None:
            return {}
        return self._spent | {self._stage: self._spent.get(self._stage, 0.0) + self._clock() - self._since}


WITH_FILES: tuple[Stage, ...] = ("ready", "loading", "loaded", "answered")
"""The stages of a host that has all files."""


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """How long the model took on a host: seconds until it was on the device, and from the prompt to the first token
    (None: without a prompt)."""

    load_seconds: float
    first_token_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class HostProgress:
    """How far a host is, in bytes, and bytes/s; `peers` includes seeders. `activity`: what it does, or what bounds
    it."""

    total: int = 0
    done: int = 0
    rate: int = 0
    peers: int = 0
    mirrors: int = 0
    cache: int = 0
    activity: str = ""

    @classmethod
    def of_transfer(cls, view: TransferView) -> "HostProgress":
        """As the host's daemon says."""
        now, sources = view.progress, view.completion or view.progress
        activity = f"{now.phase}, waiting for {now.waiting_for}" if now.waiting_for else now.phase
        return cls(
            now.total, now.done, view.rate, sources.from_peers, sources.from_mirrors, sources.from_cache, activity
        )

    @classmethod
    def of_node(cls, node: RolloutNode) -> "HostProgress":
        """As the coordinator says."""
        found = node.bytes
        done = int(node.share * node.total)
        return cls(
            *(node.total, done, node.rate, found.seeder + found.peers, found.origin, found.cache),
            activity=node.why or node.phase,
        )


@dataclass
class HostEntry:
    """One host. `seconds`: from the start of its fetch until it was ready; 0 if it was ready before. `loaded`: None
    where this bootstrap has loaded nothing. `link`: bytes/s of its fastest interface, and `mirrors`: their rate to it,
    as its preflight found; `apart`: why it takes no part in an assembly. `serving`: the plan's command runs there;
    `began_serving`: since now."""

    name: str
    stage: Stage = "waiting"
    failure: P2PModelError | None = None
    look: HostLook | None = None
    checks: tuple[DoctorCheck, ...] = ()
    missing: int = 0
    link: float | None = None
    apart: str = ""
    mirrors: LinkRate | None = None
    peer: str = ""
    cache_dir: str = ""
    serving: bool = False
    began_serving: bool = False
    progress: HostProgress = HostProgress()
    loaded: LoadTimes | None = None
    seconds: float | None = None

    def failed(self, error: P2PModelError) -> None:
        """The host takes no further part. Its files stay, and the next run goes on from there."""
        self.stage, self.failure = "failed", error

    @property
    def has_files(self) -> bool:
        """Whether it has all files."""
        return self.stage in WITH_FILES

    @property
    def changed(self) -> bool:
        """Whether this bootstrap has done anything there."""
        return bool(self.seconds) or self.loaded is not None or self.began_serving

    @property
    def share(self) -> float:
        """The part of the snapshot that it has, as far as it is known."""
        if self.has_files:
            return 1.0
        return self.progress.done / self.progress.total if self.progress.total else 0.0


@dataclass
class Roster:
    """The hosts in the order of the node set. `goal`: the stage in which a host has all that is asked for. `notes`:
    what concerns no host alone; `spent`: seconds of each stage; `rollout`: the coordinator's record at the end, None
    where it kept none, or nothing had to be done."""

    entries: dict[str, HostEntry]
    goal: Stage = "ready"
    notes: list[str] = field(default_factory=list)
    spent: Mapping[StageName, float] = field(default_factory=dict)
    rollout: RolloutView | None = None

    @classmethod
    def of(cls, hosts: Iterable[str], goal: Stage = "ready") -> "Roster":
        """All hosts waiting."""
        return cls({name: HostEntry(name) for name in hosts}, goal)

    def at(self, *stages: Stage) -> list[HostEntry]:
        """The hosts in one of `stages`."""
        return [entry for entry in self.entries.values() if entry.stage in stages]

    @property
    def estimate(self) -> float | None:
        """Seconds until the hosts that passed have all files, over the links that are known: into each of them, and one
        copy from the mirrors to all of them together. None where no link is known."""
        passed = self.at("passed")
        known = [entry.missing / entry.link for entry in passed if entry.link]
        if rate := together(entry.mirrors for entry in passed):
            known.append(max(entry.missing for entry in passed) / rate.rate)
        return max(known) * OVERHEAD if known else None

    @property
    def failed(self) -> list[HostEntry]:
        """The hosts that failed."""
        return self.at("failed")

    @property
    def done(self) -> list[HostEntry]:
        """The hosts that have all that is asked for."""
        return self.at(self.goal)


Step = Callable[[RemoteHost, HostEntry], Awaitable[None]]


class FanOut:
    """Connects to at most `width` hosts at a time."""

    def __init__(self, launcher: Launcher, width: int) -> None:
        self._launcher = launcher
        self._turns = asyncio.Semaphore(width)

    async def each(self, entries: Iterable[HostEntry], step: Step, *, within: float, what: str) -> None:
        """Do `step` on each host. One that raises, or does not end `within` seconds, has failed."""
        async with asyncio.TaskGroup() as group:
            for entry in list(entries):
                group.create_task(self._one(entry, step, within, what))

    async def on(self, name: str, step: Callable[[RemoteHost], Awaitable[None]], *, within: float, what: str) -> None:
        """Do `step` on one host. Raises what it raises, and Unavailable after `within` seconds."""
        async with self._turns:
            try:
                async with asyncio.timeout(within), self._launcher.connect(name) as host:
                    await step(host)
            except TimeoutError:
                raise Unavailable(
                    f"{name}: {what} has not ended within {within:g} s", hint="log in there, and see what it waits for"
                ) from None

    async def _one(self, entry: HostEntry, step: Step, within: float, what: str) -> None:
        try:
            await self.on(entry.name, lambda host: step(host, entry), within=within, what=what)
        except P2PModelError as error:
            entry.failed(error)
