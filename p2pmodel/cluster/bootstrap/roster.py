"""The hosts of one bootstrap: how far each is, what it said, and why it failed. One task owns it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from p2pmodel.cluster.launcher import HostLook
from p2pmodel.cluster.preflight.checks import DoctorCheck
from p2pmodel.coordinator.rollout.nodes import RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.core.progress.views import TransferView
from p2pmodel.errors import P2PModelError

Stage = Literal["waiting", "passed", "starting", "fetching", "ready", "loaded", "failed"]
"""`passed`: the preflight has no failed check; `ready`: all files are verified and visible; `loaded`: the model was
loaded there, too."""

DONE: tuple[Stage, ...] = ("ready", "loaded")


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
    """One host. `seconds`: from the start of its fetch until it was ready; 0 if it was ready before. `serving`: the
    command that the plan has for ready hosts was started."""

    name: str
    stage: Stage = "waiting"
    failure: P2PModelError | None = None
    look: HostLook | None = None
    checks: tuple[DoctorCheck, ...] = ()
    estimate: float | None = None
    missing: int = 0
    peer: str = ""
    cache_dir: str = ""
    serving: bool = False
    progress: HostProgress = HostProgress()
    seconds: float | None = None

    def failed(self, error: P2PModelError) -> None:
        """It takes no further part. What it has stays, and the next run goes on from there."""
        self.stage, self.failure = "failed", error

    @property
    def done(self) -> bool:
        """Whether it has all that was asked for so far."""
        return self.stage in DONE

    @property
    def share(self) -> float:
        """The part of the snapshot that it has, as far as it is known."""
        if self.done:
            return 1.0
        return self.progress.done / self.progress.total if self.progress.total else 0.0


@dataclass
class Roster:
    """The hosts in the order of the node set. `notes`: what concerns no host alone; `rollout`: the coordinator's record
    at the end, None where it kept none, or nothing had to be done."""

    entries: dict[str, HostEntry]
    notes: list[str] = field(default_factory=list)
    rollout: RolloutView | None = None

    @classmethod
    def of(cls, hosts: Iterable[str]) -> "Roster":
        """All hosts waiting."""
        return cls({name: HostEntry(name) for name in hosts})

    def at(self, *stages: Stage) -> list[HostEntry]:
        """The hosts in one of `stages`."""
        return [entry for entry in self.entries.values() if entry.stage in stages]

    @property
    def failed(self) -> list[HostEntry]:
        """The hosts that failed."""
        return self.at("failed")

    @property
    def done(self) -> list[HostEntry]:
        """The hosts that have all that was asked for so far."""
        return self.at(*DONE)
