"""The hosts of one bootstrap: how far each is, what it said, and why it failed. One task owns it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from p2pmodel.cluster.bootstrap.plan import Stage
from p2pmodel.cluster.bootstrap.stage_clock import StageName
from p2pmodel.cluster.launcher import HostLook
from p2pmodel.cluster.preflight.checks import DoctorCheck
from p2pmodel.coordinator.rollout.links import LinkRate
from p2pmodel.coordinator.rollout.nodes import RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.core.progress.views import TransferView
from p2pmodel.errors import P2PModelError

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
    """How far a host is, in bytes, and bytes/s; `peers` includes seeders. `told`: what it does, or what bounds it."""

    total: int = 0
    done: int = 0
    rate: int = 0
    peers: int = 0
    mirrors: int = 0
    cache: int = 0
    told: str = ""

    @classmethod
    def of_transfer(cls, view: TransferView) -> "HostProgress":
        """As the host's daemon says."""
        now, sources = view.progress, view.completion or view.progress
        told = f"{now.phase}, waiting for {now.waiting_for}" if now.waiting_for else now.phase
        return cls(now.total, now.done, view.rate, sources.from_peers, sources.from_mirrors, sources.from_cache, told)

    @classmethod
    def of_node(cls, node: RolloutNode) -> "HostProgress":
        """As the coordinator says."""
        found = node.bytes
        done = int(node.share * node.total)
        return cls(
            *(node.total, done, node.rate, found.seeder + found.peers, found.origin, found.cache),
            told=node.why or node.phase,
        )


@dataclass
class HostEntry:
    """One host. `seconds`: from the start of its fetch until it was ready; 0 if it was ready before. `loaded`: None
    where this bootstrap has loaded nothing. `mirrors`: their rate to it, as its preflight found. `serving`: the plan's
    command runs there; `began_serving`: since now."""

    name: str
    stage: Stage = "waiting"
    failure: P2PModelError | None = None
    look: HostLook | None = None
    checks: tuple[DoctorCheck, ...] = ()
    estimate: float | None = None
    missing: int = 0
    mirrors: LinkRate | None = None
    peer: str = ""
    cache_dir: str = ""
    serving: bool = False
    began_serving: bool = False
    progress: HostProgress = HostProgress()
    loaded: LoadTimes | None = None
    seconds: float | None = None

    def failed(self, error: P2PModelError) -> None:
        """It takes no further part. What it has stays, and the next run goes on from there."""
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
    def failed(self) -> list[HostEntry]:
        """The hosts that failed."""
        return self.at("failed")

    @property
    def done(self) -> list[HostEntry]:
        """The hosts that have all that is asked for."""
        return self.at(self.goal)
