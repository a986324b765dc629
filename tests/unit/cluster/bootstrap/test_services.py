"""The coordinator and the seeders of a bootstrap."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from p2pmodel.cluster.bootstrap.plan import BootstrapPlan, CoordinatorPlace
from p2pmodel.cluster.bootstrap.roster import FanOut
from p2pmodel.cluster.bootstrap.services import COORDINATOR, SEEDER, ClusterServices, seeder_progress
from p2pmodel.cluster.launcher import Completed, HostUnreachable, ServiceSpec
from p2pmodel.cluster.launchers.memory import MemoryHost, MemoryLauncher
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.http.server import serving

REF = Reference(RepoId("org/model"))


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with serving(coordinator_app(Tracker(), Catalog()), "127.0.0.1", 0) as url:
        yield Coordinator(url)


def services_of(launcher: MemoryLauncher, place: CoordinatorPlace, given: Coordinator | None = None) -> ClusterServices:
    plan = BootstrapPlan(REF, Manifest(REF.repo, "c" * 40, ()), tuple(launcher.hosts), place)
    return ClusterServices(plan, FanOut(launcher, 4), given)


def test_the_progress_of_a_seeder_is_the_last_in_its_log() -> None:
    lines = [
        "mirroring begins",
        json.dumps({"phase": "mirroring", "done": 5_000_000, "total": 20_000_000, "download_rate": 1_000_000}),
        "a warning",
    ]
    assert seeder_progress("\n".join(lines)) == "mirroring 25% of 20.0 MB, 1.0 MB/s"
    assert seeder_progress('{"phase": "finding", "done": 0, "total": 0, "download_rate": 0}') == "finding"
    assert seeder_progress('"done": 5}\nno json') == "starting"


async def test_another_host_has_the_coordinator_where_the_first_does_not_pass() -> None:
    hosts = [MemoryHost(f"gpu{number}") for number in range(1, 5)]
    services = services_of(MemoryLauncher(*hosts), CoordinatorPlace("gpu1", fixed=False))
    assert await services._chosen(["gpu2", "gpu3", "gpu4"], []) == "gpu2"
    assert await services._chosen(["gpu1", "gpu2", "gpu3"], []) == "gpu1"
    assert await services._chosen(["gpu1", "gpu2", "gpu3"], ["gpu3"]) == "gpu3"
    assert await services._chosen(["gpu1", "gpu2", "gpu3"], ["gpu1", "gpu3"]) == "gpu1"


async def test_a_part_of_the_hosts_finds_the_coordinator_on_any_other() -> None:
    hosts = [MemoryHost(f"gpu{number}") for number in range(1, 5)]
    launcher = MemoryLauncher(*hosts)
    plan = BootstrapPlan(
        REF,
        Manifest(REF.repo, "c" * 40, ()),
        ("gpu4",),
        CoordinatorPlace("gpu1", fixed=False),
        beyond=("gpu1", "gpu2", "gpu3"),
    )

    def services() -> ClusterServices:
        return ClusterServices(plan, FanOut(launcher, 4), None)

    assert await services()._chosen(["gpu4"], []) == "gpu1"  # the default is reached, and no other runs one
    await hosts[2].start(ServiceSpec(COORDINATOR, ("p2pmodel", "coordinator")))
    assert await services()._chosen(["gpu4"], []) == "gpu3"
    hosts[0].failure = HostUnreachable("gpu1: gone")
    assert await services()._chosen(["gpu4"], []) == "gpu3"
    await hosts[2].stop(COORDINATOR)
    assert await services()._chosen(["gpu4"], []) == "gpu4"
    hosts[0].failure = None
    await hosts[0].start(ServiceSpec(COORDINATOR, ("p2pmodel", "coordinator")))
    launcher.connections.clear()
    assert await services()._chosen(["gpu4"], []) == "gpu1"
    assert launcher.connections == ["gpu1"]  # the others are left alone


async def test_seeders_that_end_or_are_not_reached_are_a_reason_and_no_error(coordinator: Coordinator) -> None:
    first, second = MemoryHost("gpu1"), MemoryHost("gpu2")
    second.failure = HostUnreachable("gpu2: ssh cannot connect")
    services = services_of(MemoryLauncher(first, second), CoordinatorPlace(url=coordinator.url), coordinator)
    shown: list[str] = []

    async def end() -> None:
        async with asyncio.timeout(60):
            while not shown:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        first.ended(SEEDER)

    why, _ = await asyncio.gather(
        services.seed_from(["gpu1", "gpu2"], time.monotonic() + 60, shown.append),
        end(),
    )
    assert "gpu1: its seeder ended" in why
    assert "gpu2: ssh cannot connect" in why
    assert shown[0] == "gpu1: starting"


async def test_the_seeder_of_another_model_gives_way_and_the_coordinator_stays(coordinator: Coordinator) -> None:
    host = MemoryHost("gpu1", programs={"cat": lambda _command, _stdin: Completed(0, b"t" * 16, b"")})
    await host.start(ServiceSpec(SEEDER, ("p2pmodel", "seed", "org/other")))
    launcher = MemoryLauncher(host)
    services = services_of(launcher, CoordinatorPlace("gpu1"), coordinator)
    await services._seeder_on(host, assemble=False)
    assert str(REF) in host.services[SEEDER].command
    for endpoint in ("http://a.site", "http://b.site"):
        plan = BootstrapPlan(
            REF,
            Manifest(REF.repo, "c" * 40, ()),
            ("gpu1",),
            CoordinatorPlace("gpu1"),
            environment={"P2PMODEL_ENDPOINTS": endpoint, "P2PMODEL_STATE_DIR": "/local"},
        )
        await ClusterServices(plan, FanOut(launcher, 4), None)._coordinator_on(host)
    assert host.services[COORDINATOR].environment == {"P2PMODEL_STATE_DIR": "/local"}
