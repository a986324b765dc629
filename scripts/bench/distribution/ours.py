"""Our own nodes: warm, cold, or with a coordinator apart from the seeder."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.bench.distribution.contestants import (
    COORDINATOR_PORT,
    MIRROR_PORT,
    PEER_PORT,
    REPO,
    SEED_SECONDS,
    Contestant,
    Gate,
    Room,
    Sources,
    start_mirror,
    start_seeder,
    url_of,
)
from scripts.bench.rigs.cluster import Host
from scripts.bench.rigs.machine import P2PMODEL
from scripts.bench.rigs.programs import Program

_PUBLISHED_AFTER = 1.0
"""Seconds in which a seeder that serves has told the other coordinator so."""


def ours(*, cold: bool, apart: bool, env: Mapping[str, str]) -> Contestant:
    """`cold`: no torrent exists. `apart`: the coordinator is not the seeder's, so that either can die alone."""
    sources = _cold_sources if cold else _apart_sources if apart else _warm_sources
    where = "coordinator" if cold or apart else "seeder"

    def command(room: Room, host: Host, home: Path) -> list[str]:
        coordinator: Host = getattr(room, where)
        reached = [
            "--coordinator",
            url_of(coordinator, COORDINATOR_PORT),
            "--endpoint",
            url_of(room.mirror, MIRROR_PORT),
        ]
        return [*_fetch(host), *reached, "--cache-dir", str(home / "hub")]

    return Contestant("ours", "line", sources, command, env)


def _fetch(host: Host) -> list[str]:
    listen = ["--swarm-listen", f"{host.address}:{PEER_PORT}", "--seed-time", SEED_SECONDS, "--json", "-q"]
    return [*P2PMODEL, "fetch", REPO, *listen]


def _coordinator(room: Room) -> Program:
    listen = ["--listen", f"{room.coordinator.address}:{COORDINATOR_PORT}", "--insecure-public", "--json", "-q"]
    state = ["--state-dir", str(room.place / "coordinator/state")]
    return room.start(room.coordinator, [*P2PMODEL, "coordinator", *listen, *state])


def _sources(room: Room, gate: str, again: dict[str, Callable[[], Program]]) -> Sources:
    """Start what `again` names, in that order."""
    programs = {}
    for role, start in again.items():
        programs[role] = start()
        programs[role].first()
    return Sources(Gate(programs[gate], getattr(room, gate), COORDINATOR_PORT), programs, again)


def _warm_sources(room: Room) -> Sources:
    return _sources(
        room, "seeder", {"mirror": lambda: start_mirror(room, room.mirror), "seeder": lambda: start_seeder(room)}
    )


def _cold_sources(room: Room) -> Sources:
    return _sources(
        room,
        "coordinator",
        {"mirror": lambda: start_mirror(room, room.mirror), "coordinator": lambda: _coordinator(room)},
    )


def _apart_sources(room: Room) -> Sources:
    """A coordinator that all were given, and a seeder that publishes to it and is found through it."""
    url = url_of(room.coordinator, COORDINATOR_PORT)
    found = _cold_sources(room)
    found.again["seeder"] = lambda: start_seeder(room, coordinator=url)
    found.programs["seeder"] = found.again["seeder"]()
    found.programs["seeder"].first()
    time.sleep(_PUBLISHED_AFTER)
    return found
