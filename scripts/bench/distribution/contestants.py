"""Contestants: how their sources and nodes start, and how a node signals that it is complete.

Every contestant has a gate: the program that each node contacts first, and its port. The program is held while the
nodes start, so that the start of N processes on few cores does not count.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scripts.bench.rigs.cluster import Host
from scripts.bench.rigs.machine import P2PMODEL, environment
from scripts.bench.rigs.programs import Program

REPO = "bench/model"
COORDINATOR_PORT, MIRROR_PORT, PEER_PORT = 6969, 8090, 6881
MIRROR_LOG = "mirror.served"
SEED_SECONDS = "86400"
PATIENT = {"P2PMODEL_SWARM_COORDINATOR_TIMEOUT": "120", "HF_HUB_ETAG_TIMEOUT": "120", "HF_HUB_DOWNLOAD_TIMEOUT": "120"}
"""Timeouts long enough for a gate that is held."""

Sign = Literal["line", "exit", "mark"]
"""A line on stdout, an exit with code 0, or a file named `complete` in the node's folder."""


@dataclass(frozen=True, slots=True)
class RunSite:
    """The parts of one run: its hosts, the cache with the snapshot, a folder, and the stack that ends it."""

    seeder: Host
    mirror: Host
    coordinator: Host
    cache: Path
    place: Path
    stack: ExitStack

    def start(self, host: Host, command: list[str], env: Mapping[str, str] | None = None) -> Program:
        """Run a source on `host`."""
        home = self.place / host.name
        home.mkdir(exist_ok=True)
        whole = environment(home) | dict(env or {})
        return Program(host.inside(command), self.stack, env=whole, log=self.place / f"{host.name}.log")


@dataclass(frozen=True, slots=True)
class Gate:
    """`program` on `host` answers at `port`."""

    program: Program
    host: Host
    port: int


@dataclass(slots=True)
class Sources:
    """The servers of the nodes: `programs` by role, and how each starts again."""

    gate: Gate
    programs: dict[str, Program]
    again: dict[str, Callable[[], Program]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One kind of node. `command` takes the run's site, the node's host and its folder."""

    name: str
    sign: Sign
    sources: Callable[[RunSite], Sources]
    command: Callable[[RunSite, Host, Path], list[str]]
    env: Mapping[str, str] = field(default_factory=dict)

    def start(self, site: RunSite, host: Host, home: Path) -> Program:
        """A node on `host` that keeps all its files in `home`."""
        home.mkdir(exist_ok=True)
        env = environment(home) | PATIENT | dict(self.env)
        command = host.inside(self.command(site, host, home))
        return Program(command, site.stack, env=env, log=home.with_suffix(".log"))


def url_of(host: Host, port: int) -> str:
    """The URL of a server on `host`."""
    return f"http://{host.address}:{port}"


def start_mirror(site: RunSite, host: Host) -> Program:
    """Serve the cache as a hub on `host`, with an access log. Its first line means that it listens."""
    serve = ["mirror", "serve", "--listen", f"{host.address}:{MIRROR_PORT}", "--insecure-public", "--json", "-q"]
    serve += ["--access-log", str(site.place / MIRROR_LOG)]
    return site.start(host, [*P2PMODEL, *serve, "--cache-dir", str(site.cache)])


def start_seeder(site: RunSite, *formats: str, coordinator: str | None = None) -> Program:
    """Seed the snapshot, in `formats` beside v2, with its own coordinator, and publish to the URL `coordinator` too.

    Its first line means that it serves.
    """
    listen = ["--listen", f"{site.seeder.address}:{COORDINATOR_PORT}", "--insecure-public"]
    listen += ["--swarm-listen", f"{site.seeder.address}:{PEER_PORT}", "--cache-dir", str(site.cache)]
    mirror = ["--endpoint", url_of(site.mirror, MIRROR_PORT)]
    exports = [part for each in formats for part in ("--format", each)]
    seed = [*P2PMODEL, "seed", REPO, *listen, *mirror, *exports, "--json", "--progress", "json"]
    seed += ["--coordinator", coordinator] if coordinator else []
    return site.start(site.seeder, seed, {"HF_HUB_OFFLINE": "1"})
