"""What the checks judge: the facts of one node and of the snapshot that it is to hold."""

from dataclasses import dataclass

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
    daemon: DaemonFact | None = None
    ports: tuple[PortFact, ...] = ()
    gpus: tuple[GpuFact, ...] | None = None
    """None: this machine has no driver that lists GPUs."""
    mirrors: tuple[SourceFact, ...] = ()
    coordinators: tuple[SourceFact, ...] = ()
