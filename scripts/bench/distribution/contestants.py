"""Who is measured: how each contestant's sources and nodes are started, and how a node says that it is complete.

Every contestant has a gate: the program that each node asks first, and the port it asks at. It is held while the nodes
start, so that the start of N processes on few cores counts for nobody.
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
"""So that nobody gives up on a gate that is held."""

Sign = Literal["line", "exit", "mark"]
"""A line on stdout, an exit with code 0, or a file named `complete` in the node's folder."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a run has: its hosts, the cache with the snapshot, a folder of its own, and what ends with it."""

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
    """What serves the nodes. `programs` by role, and how each is started again."""

    gate: Gate
    programs: dict[str, Program]
    again: dict[str, Callable[[], Program]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One kind of node. `command` takes the room, the node's host and its folder."""

    name: str
    sign: Sign
    sources: Callable[[Room], Sources]
    command: Callable[[Room, Host, Path], list[str]]
    env: Mapping[str, str] = field(default_factory=dict)

    def start(self, room: Room, host: Host, home: Path) -> Program:
        """A node on `host` that keeps everything in `home`."""
        home.mkdir(exist_ok=True)
        env = environment(home) | PATIENT | dict(self.env)
        command = host.inside(self.command(room, host, home))
        return Program(command, room.stack, env=env, log=home.with_suffix(".log"))


def url_of(host: Host, port: int) -> str:
    """Where a server of `host` is reached."""
    return f"http://{host.address}:{port}"


def start_mirror(room: Room, host: Host) -> Program:
    """Serve the room's cache as a hub on `host`, with a log of it; it listens when it has said its first line."""
    serve = ["mirror", "serve", "--listen", f"{host.address}:{MIRROR_PORT}", "--insecure-public", "--json", "-q"]
    serve += ["--access-log", str(room.place / MIRROR_LOG)]
    return room.start(host, [*P2PMODEL, *serve, "--cache-dir", str(room.cache)])


def start_seeder(room: Room, *formats: str, coordinator: str | None = None) -> Program:
    """Seed the snapshot, in `formats` beside v2, with a coordinator of its own, and to that at the URL `coordinator`.

    It serves when it has said its first line.
    """
    listen = ["--listen", f"{room.seeder.address}:{COORDINATOR_PORT}", "--insecure-public"]
    listen += ["--swarm-listen", f"{room.seeder.address}:{PEER_PORT}", "--cache-dir", str(room.cache)]
    mirror = ["--endpoint", url_of(room.mirror, MIRROR_PORT)]
    exports = [part for each in formats for part in ("--format", each)]
    seed = [*P2PMODEL, "seed", REPO, *listen, *mirror, *exports, "--json", "--progress", "json"]
    seed += ["--coordinator", coordinator] if coordinator else []
    return room.start(room.seeder, seed, {"HF_HUB_OFFLINE": "1"})
