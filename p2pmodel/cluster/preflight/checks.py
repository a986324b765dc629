"""The facts of one node and of the snapshot that it is to hold, and checks of them, each with what to do. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from p2pmodel.core.sizes import bit_rate, duration, human

WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
"""Suffixes of the files that a loader puts into the memory of the device."""


@dataclass(frozen=True, slots=True)
class SnapshotNeed:
    """A snapshot on one node: bytes in all, bytes that are not in its cache, and bytes of weights. `staged`: bytes of
    the missing ones that an earlier run has left on the disk."""

    repo: str
    commit: str
    size: int
    missing: int
    staged: int
    weights: int


@dataclass(frozen=True, slots=True)
class PortFact:
    """A port that the daemon will listen on. `taken`: another program listens there; `fixed`: it is configured, so the
    daemon does not take another."""

    use: str
    address: str
    taken: bool
    fixed: bool


@dataclass(frozen=True, slots=True)
class SourceFact:
    """A mirror or coordinator: its name, and why it cannot be used ("" if it can). `connect`: seconds to connect;
    `rate`: bytes/s, where it was measured; `limit`: bytes/s that the settings allow it, None: any number; `clock`:
    seconds by which its clock is ahead of this machine's."""

    name: str
    error: str = ""
    connect: float | None = None
    rate: float | None = None
    clock: float | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class GpuFact:
    """A GPU: its name, and bytes of memory in all and free."""

    name: str
    memory: int
    free: int


@dataclass(frozen=True, slots=True)
class DaemonFact:
    """The daemon that runs on the node's socket."""

    version: str
    cache_dir: str
    peer: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node. `unwritable`: why files cannot be made in the cache, or ""; `link`: bytes/s of its fastest network link,
    None where the system reports none; `trusts_coordinator`: it takes the coordinator's word for a list of files."""

    version: str
    node: str
    cache_dir: str
    state_dir: str
    socket: str
    free: int
    unwritable: str
    open_files: int
    cores: int
    sha_cores: int
    memory: int
    link: float | None
    trusts_coordinator: bool
    offline: bool
    apart: str = ""
    """Why it takes no part in an assembly of the snapshot; "" if it does."""
    daemon: DaemonFact | None = None
    ports: tuple[PortFact, ...] = ()
    gpus: tuple[GpuFact, ...] | None = None
    """None: this machine has no driver that lists GPUs."""
    mirrors: tuple[SourceFact, ...] = ()
    coordinators: tuple[SourceFact, ...] = ()


Outcome = Literal["ok", "warning", "failed"]

FEW_FILES, TOO_FEW_FILES = 4096, 512
"""Open files below which a node of a large cluster is slow, and below which it does not work."""
SKEWED = 30.0
"""Seconds between two clocks from which on times in logs and reports mislead."""
LOADED_SHARE = 1.1
"""Memory of a loaded model in bytes of its weights: the rest is for activations."""
SPARE = 64 << 20
"""Bytes that stay free on the disk beside the snapshot, for records and staging."""
OVERHEAD = 1.3
"""Time of a roll-out in multiples of what the links allow (docs/benchmarks)."""


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One check: what was found, and what to do unless it is ok."""

    name: str
    outcome: Outcome
    found: str
    hint: str = ""

    @property
    def line(self) -> str:
        """As one line."""
        return f"{self.name}: {self.found}" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """The preflight of one node."""

    facts: NodeFacts
    need: SnapshotNeed | None
    checks: tuple[DoctorCheck, ...]
    seconds: float | None
    """Estimate of the time until the snapshot is complete, from the links that are known; None where none is."""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[DoctorCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome == "failed")


def diagnosed(
    facts: NodeFacts, need: SnapshotNeed | None, *, version: str, load: bool, unknown: str = ""
) -> PreflightReport:
    """Judge `facts`. `version`: the one that all nodes need; `load`: the model is to be loaded; `unknown`: why the
    snapshot that was asked for is not known."""
    checks = (
        *((DoctorCheck("snapshot", "failed", unknown),) if unknown else ()),
        *_versions(facts, version),
        *_disk(facts, need),
        *_network(facts),
        *_sources(facts, need),
        *_machine(facts),
        *(_gpu(facts, need) if load else ()),
    )
    return PreflightReport(facts, need, tuple(checks), estimate(facts, need))


def estimate(facts: NodeFacts, need: SnapshotNeed | None) -> float | None:
    """Seconds for the missing bytes over the slowest link that is known: the node's own, or all its mirrors together
    where no coordinator shares the load."""
    if need is None:
        return None
    missing = need.missing - need.staged
    if missing <= 0:
        return 0.0
    mirrors = sum(each.rate for each in facts.mirrors if each.rate and not each.error)
    rates = [rate for rate in (facts.link, None if facts.coordinators else mirrors) if rate]
    return missing / min(rates) * OVERHEAD if rates else None


def _versions(facts: NodeFacts, version: str) -> Iterator[DoctorCheck]:
    if facts.version != version:
        hint = "install the same version everywhere"
        yield DoctorCheck("version", "failed", f"p2pmodel {facts.version}, not {version}", hint)
    elif facts.daemon and facts.daemon.version != facts.version:
        found = f"the running daemon is {facts.daemon.version}, the installed p2pmodel {facts.version}"
        yield DoctorCheck("version", "failed", found, "restart the daemon")
    else:
        yield DoctorCheck("version", "ok", f"p2pmodel {facts.version}")
    if facts.daemon and facts.daemon.cache_dir != facts.cache_dir:
        found = f"the running daemon uses {facts.daemon.cache_dir}, not {facts.cache_dir}"
        yield DoctorCheck("daemon", "failed", found, "set HF_HUB_CACHE alike, or restart the daemon")


def _disk(facts: NodeFacts, need: SnapshotNeed | None) -> Iterator[DoctorCheck]:
    if facts.unwritable:
        yield DoctorCheck("cache", "failed", facts.unwritable, "check its owner and mode, or choose another cache")
    else:
        yield DoctorCheck("cache", "ok", f"{facts.cache_dir} is writable")
    if need is None:
        yield DoctorCheck("disk", "ok", f"{human(facts.free)} free")
        return
    missing = max(0, need.missing - need.staged)
    found = f"{human(facts.free)} free for {human(missing)} that are missing of {human(need.size)}"
    enough = not missing or facts.free >= missing + SPARE
    yield (
        DoctorCheck("disk", "ok", found)
        if enough
        else DoctorCheck(
            "disk", "failed", found, f"free {human(missing + SPARE - facts.free)}, or choose another cache"
        )
    )


def _network(facts: NodeFacts) -> Iterator[DoctorCheck]:
    for port in facts.ports:
        where = f"{port.address} for {port.use}"
        if not port.taken:
            yield DoctorCheck("port", "ok", f"{where} is free")
        elif port.fixed:
            yield DoctorCheck("port", "failed", f"another program has {where}", "end it, or configure another port")
        else:
            yield DoctorCheck(
                "port", "warning", f"another program has {where}: a free one is used", "firewalls must admit that one"
            )
    if facts.daemon:
        yield DoctorCheck("port", "ok", f"the daemon listens at {facts.daemon.peer}")
    # Interfaces of virtual machines and containers report none, so that is no fault.
    speed = f"{bit_rate(facts.link)} by the fastest interface" if facts.link else "no interface reports its speed"
    yield DoctorCheck("link", "ok", speed)
    clocks = [each for each in facts.coordinators if each.clock is not None]
    for each in clocks:
        skew = each.clock or 0.0
        found = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} {each.name}"
        if abs(skew) >= SKEWED:
            yield DoctorCheck("clock", "warning", found, "synchronise the clocks (NTP): times in reports are wrong")
        else:
            yield DoctorCheck("clock", "ok", f"as that of {each.name}")


def _sources(facts: NodeFacts, need: SnapshotNeed | None) -> Iterator[DoctorCheck]:
    for each in facts.coordinators:
        if each.error:
            yield DoctorCheck("coordinator", "failed", f"{each.name}: {each.error}", "check the URL and the token file")
        else:
            yield DoctorCheck("coordinator", "ok", f"{each.name} answers")
    usable = [each for each in facts.mirrors if not each.error]
    if usable:
        yield DoctorCheck("mirrors", "ok", ", ".join(map(_mirror, usable)))
        return
    why = "HF_HUB_OFFLINE is set" if facts.offline else "; ".join(f"{m.name}: {m.error}" for m in facts.mirrors)
    found = f"none answers ({why or 'none is configured'})"
    if need is not None and not need.missing:
        yield DoctorCheck("mirrors", "ok", f"{found}; none is needed")
    elif facts.trusts_coordinator:
        yield DoctorCheck("mirrors", "ok", f"{found}; the coordinator's word is enough here")
    else:
        hint = "check the network, or set swarm.trust to coordinator where no node reaches one"
        yield DoctorCheck("mirrors", "failed", found, hint)


def _mirror(each: SourceFact) -> str:
    rate = f", {human(each.rate)}/s" if each.rate else ""
    return f"{each.name} ({each.connect * 1e3:.0f} ms{rate})" if each.connect is not None else each.name


def _machine(facts: NodeFacts) -> Iterator[DoctorCheck]:
    files = f"{facts.open_files} open files are allowed"
    if facts.open_files < TOO_FEW_FILES:
        yield DoctorCheck("open files", "failed", files, f"raise the hard limit to {FEW_FILES} or more")
    elif facts.open_files < FEW_FILES:
        yield DoctorCheck("open files", "warning", files, f"raise the hard limit to {FEW_FILES} or more")
    else:
        yield DoctorCheck("open files", "ok", files)
    cores = f"{facts.cores} cores, {facts.sha_cores} with SHA instructions"
    slow = "hashing takes about four times as long without SHA instructions"
    yield DoctorCheck("cores", "ok", cores) if facts.sha_cores else DoctorCheck("cores", "warning", cores, slow)


def _gpu(facts: NodeFacts, need: SnapshotNeed | None) -> Iterator[DoctorCheck]:
    needed = int((need.weights if need else 0) * LOADED_SHARE)
    if facts.gpus:
        free = sum(gpu.free for gpu in facts.gpus)
        found = f"{human(free)} free on {len(facts.gpus)} GPUs for a model of about {human(needed)}"
        hint = "free GPU memory, or load it on more GPUs"
    else:
        free = facts.memory
        found = f"no GPU; {human(free)} of memory for a model of about {human(needed)}"
        hint = "use a machine with more memory"
    if free < needed:
        yield DoctorCheck("gpu", "failed", found, hint)
    elif facts.gpus:
        yield DoctorCheck("gpu", "ok", found)
    else:
        yield DoctorCheck("gpu", "warning", found, "the model runs on the CPU")


def words(found: PreflightReport) -> str:
    """The estimate as text."""
    if found.need is None:
        return ""
    missing = human(max(0, found.need.missing - found.need.staged))
    if found.seconds is None:
        return f"{missing} to fetch; no link reports its rate"
    return f"{missing} to fetch, at least {duration(found.seconds)} over the known links" if found.seconds else "ready"
