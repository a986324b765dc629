"""Nodes of p2pmodel: warm, cold, or with a coordinator apart from the seeder."""

import sys
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
    RunSite,
    Sources,
    start_mirror,
    start_seeder,
    url_of,
)
from scripts.bench.rigs.cluster import Host
from scripts.bench.rigs.machine import P2PMODEL, publish_token
from scripts.bench.rigs.programs import Program

_PUBLISHED_AFTER = 1.0
"""Seconds within which a serving seeder has published to the other coordinator."""


def own_nodes(*, cold: bool, apart: bool, env: Mapping[str, str]) -> Contestant:
    """The contestant `ours`.

    `cold`: no torrent exists. `apart`: the coordinator is not the seeder's, so that each can die alone.
    """
    sources = _cold_sources if cold else _apart_sources if apart else _warm_sources
    where = "coordinator" if cold or apart else "seeder"

    def command(site: RunSite, host: Host, home: Path) -> list[str]:
        coordinator: Host = getattr(site, where)
        servers = ["--coordinator", url_of(coordinator, COORDINATOR_PORT)]
        servers += ["--endpoint", url_of(site.mirror, MIRROR_PORT)]
        zone = ["--zone", host.zone] if host.zone else []
        return [*_fetch(host), *servers, *zone, "--cache-dir", str(home / "hub")]

    return Contestant("ours", "line", sources, command, env)


def loading_nodes(env: Mapping[str, str]) -> Contestant:
    """The contestant `loading`: as `ours`, and all nodes ask for the next tensors of a load meanwhile."""

    def command(site: RunSite, host: Host, home: Path) -> list[str]:
        settings = {
            "P2PMODEL_COORDINATORS": url_of(site.seeder, COORDINATOR_PORT),
            "P2PMODEL_SWARM_LISTEN": f"{host.address}:{PEER_PORT}",
            "HF_ENDPOINT": url_of(site.mirror, MIRROR_PORT),
            "HF_HUB_CACHE": str(home / "hub"),
        }
        program = [sys.executable, "-m", "scripts.bench.distribution.loading_node", REPO]
        return ["env", *(f"{name}={value}" for name, value in settings.items()), *program]

    return Contestant("loading", "line", _warm_sources, command, env)


def _fetch(host: Host) -> list[str]:
    listen = ["--swarm-listen", f"{host.address}:{PEER_PORT}", "--seed-time", SEED_SECONDS, "--json", "-q"]
    return [*P2PMODEL, "fetch", REPO, *listen]


def _coordinator(site: RunSite) -> Program:
    listen = ["--listen", f"{site.coordinator.address}:{COORDINATOR_PORT}", "--insecure-public", "--json", "-q"]
    listen += ["--publish-token-file", str(publish_token(site.place))]
    state = ["--state-dir", str(site.place / "coordinator/state")]
    return site.start(site.coordinator, [*P2PMODEL, "coordinator", *listen, *state])


def _sources(site: RunSite, gate: str, again: dict[str, Callable[[], Program]]) -> Sources:
    """Start the programs of `again`, in that order."""
    programs = {}
    for role, start in again.items():
        programs[role] = start()
        programs[role].first()
    return Sources(Gate(programs[gate], getattr(site, gate), COORDINATOR_PORT), programs, again)


def _warm_sources(site: RunSite) -> Sources:
    return _sources(
        site, "seeder", {"mirror": lambda: start_mirror(site, site.mirror), "seeder": lambda: start_seeder(site)}
    )


def _cold_sources(site: RunSite) -> Sources:
    return _sources(
        site,
        "coordinator",
        {"mirror": lambda: start_mirror(site, site.mirror), "coordinator": lambda: _coordinator(site)},
    )


def _apart_sources(site: RunSite) -> Sources:
    """A coordinator that all nodes are given, and a seeder that publishes to it and is found through it."""
    url = url_of(site.coordinator, COORDINATOR_PORT)
    found = _cold_sources(site)
    found.again["seeder"] = lambda: start_seeder(site, coordinator=url)
    found.programs["seeder"] = found.again["seeder"]()
    found.programs["seeder"].first()
    time.sleep(_PUBLISHED_AFTER)
    return found
