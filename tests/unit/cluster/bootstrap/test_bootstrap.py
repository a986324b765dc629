"""A bootstrap over the twin of the launchers: faults of single hosts, reuse, and what is never done."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from p2pmodel import __version__
from p2pmodel.cluster.bootstrap import report
from p2pmodel.cluster.bootstrap.bootstrap import Bootstrap, take_down
from p2pmodel.cluster.bootstrap.plan import BootstrapPlan, CoordinatorPlace
from p2pmodel.cluster.bootstrap.roster import Roster
from p2pmodel.cluster.carried import CarriedSettings
from p2pmodel.cluster.launcher import Completed, HostRefused, HostUnreachable, ServiceSpec, ServiceState
from p2pmodel.cluster.launchers.memory import MemoryDaemon, MemoryHost, MemoryLauncher
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollouts import RolloutClient, SnapshotReport
from p2pmodel.coordinator.rollout.links import LinkRate, NodeLinks
from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeReport
from p2pmodel.coordinator.rollout.rollout import MinReady
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Credentials
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.progress.views import TransferView
from p2pmodel.errors import InvalidInput, P2PModelError
from p2pmodel.http.server import serving

COMMIT = "c" * 40
REF = Reference(RepoId("org/model"), COMMIT)
MANIFEST = Manifest(REF.repo, COMMIT, (ManifestFile("model.safetensors", 1000, "a" * 40, "b" * 64),))
MEMBER, PUBLISHER = "m" * 16, "p" * 16


def doctor(outcome: str = "ok", name: str = "disk", *, apart: str = "") -> Callable[[Sequence[str], bytes], Completed]:
    def program(command: Sequence[str], _stdin: bytes) -> Completed:
        assert command[1] == "doctor"
        checks = [{"name": name, "outcome": outcome, "found": "10 GB free", "hint": ""}]
        plain = {
            "passed": outcome == "ok",
            "seconds": 1.0,
            "snapshot": {"missing": 1000, "staged": 0},
            "checks": checks,
            "node": {"link": None, "mirrors": [], "apart": apart},
        }
        return Completed(0 if outcome == "ok" else 7, json.dumps(plain).encode(), b"")

    return program


def host(name: str, outcome: str = "ok") -> MemoryHost:
    found = MemoryHost(name)
    found.programs["p2pmodel"] = doctor(outcome)
    return found


class Told:
    """A screen that keeps the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.examined = ""

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def preflight(self, roster: Roster) -> None:
        self.examined = self.stages[-1]

    def progress(self, roster: Roster) -> None: ...


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    credentials = Credentials(member=MEMBER, publishers={"bootstrap": PUBLISHER})
    async with serving(coordinator_app(Tracker(), Catalog(), credentials=credentials), "127.0.0.1", 0) as url:
        yield Coordinator(url, MEMBER, PUBLISHER)


def plan_of(launcher: MemoryLauncher, coordinator: Coordinator, **changes: object) -> BootstrapPlan:
    given = {"seeders": 0, "timeout": 60.0, **changes}
    return BootstrapPlan(REF, MANIFEST, tuple(launcher.hosts), CoordinatorPlace(url=coordinator.url), **given)


async def run(
    launcher: MemoryLauncher, coordinator: Coordinator, **changes: object
) -> tuple[BootstrapPlan, Roster, Told]:
    plan, screen = plan_of(launcher, coordinator, **changes), Told()
    roster = await asyncio.wait_for(Bootstrap(plan, launcher, screen, coordinator).run(), 60)
    return plan, roster, screen


async def test_carried_settings_are_there_before_the_preflight_and_for_all_that_starts(
    coordinator: Coordinator,
) -> None:
    named = host("gpu0")
    there: list[bytes] = []

    def shell(command: Sequence[str], stdin: bytes) -> Completed:
        if stdin:
            there.append(stdin)
        return Completed(0, b"", b"")

    def with_environment(command: Sequence[str], stdin: bytes) -> Completed:
        assert there
        assert command[1] == "P2PMODEL_CLUSTER_CONFIG=/state/cluster/settings/p2pmodel.toml"
        return doctor()(command[2:], stdin)

    named.programs |= {"sh": shell, "env": with_environment}
    carried = CarriedSettings({"p2pmodel.toml": b"the mirrors"}, kept=("a token stays here",))
    _, roster, _ = await run(MemoryLauncher(named), coordinator, settings=carried)
    assert roster.entries["gpu0"].stage == "ready"
    assert b"the mirrors" in there[0]
    service = named.services["daemon"]
    assert service.environment["P2PMODEL_CLUSTER_CONFIG"] == "/state/cluster/settings/p2pmodel.toml"
    assert roster.notes == ["a token stays here"]


async def test_all_hosts_become_ready_and_a_second_run_changes_nothing(coordinator: Coordinator) -> None:
    launcher = MemoryLauncher(*(host(f"gpu{n}") for n in range(5)))
    plan, roster, screen = await run(launcher, coordinator, fanout=2)
    assert [entry.stage for entry in roster.entries.values()] == ["ready"] * 5
    assert launcher.most <= 2
    assert report.verdict(plan, roster, "") is None
    token = launcher.hosts["gpu0"].files["/state/cluster/member.token"]
    assert token.decode().strip() == MEMBER
    service = launcher.hosts["gpu0"].services["daemon"]
    assert MEMBER not in " ".join([*service.command, *service.environment.values()])
    view = roster.rollout
    assert view is not None
    assert (view.spec.commit, view.spec.min_ready) == (COMMIT, plan.min_ready)

    before = [dict(each.services) for each in launcher.hosts.values()]
    connections = len(launcher.connections)
    plan, again, screen = await run(launcher, coordinator)
    assert len(launcher.connections) == connections + 5  # one look at each, and nothing else
    assert [dict(each.services) for each in launcher.hosts.values()] == before
    assert screen.stages == ["preflight of 5 hosts"]
    assert report.plain(plan, again, 0.1, ",".join)["changed"] is False
    assert "nothing to do" in report.words(plan, again, 0.1)[0]


async def test_hosts_that_fail_leave_the_others_alone_and_are_named(coordinator: Coordinator) -> None:
    down, strange, full, bare = host("down"), host("strange"), host("full", "failed"), MemoryHost("bare")
    down.failure = HostUnreachable("down: ssh cannot connect: connection refused")
    strange.failure = HostRefused("strange: its ssh host key is not the one in known_hosts")
    launcher = MemoryLauncher(host("good1"), down, strange, full, bare, host("good2"))
    plan, roster, _ = await run(launcher, coordinator, min_ready=MinReady.parse("90%"))
    assert [entry.name for entry in roster.done] == ["good1", "good2"]
    found = report.plain(plan, roster, 1.0, ",".join)
    assert found["failed"] == "down,strange,full,bare"
    assert found["nodes"]["full"]["reason"].startswith("disk: 10 GB free")
    assert "not installed" in found["nodes"]["bare"]["reason"]
    assert "daemon" not in full.services
    error = report.verdict(plan, roster, "")
    assert error is not None
    assert (error.exit_code, error.what) == (8, "2 of 6 hosts are ready, 6 are needed")
    assert report.verdict(plan_of(launcher, coordinator, min_ready=MinReady.parse("2")), roster, "") is None
    view = await RolloutClient(coordinator).read((await RolloutClient(coordinator).all())[0].id)
    failures = {node.name: node.failure.message for node in view.nodes if node.failure}
    assert "connection refused" in failures["down"]
    assert sorted(failures) == ["bare", "down", "full", "strange"]


async def test_a_command_starts_on_each_ready_host_once_and_ends_with_down(coordinator: Coordinator) -> None:
    launcher = MemoryLauncher(host("gpu1"), host("gpu2", "failed"))
    for _ in range(2):
        plan, roster, _ = await run(launcher, coordinator, serve="exec vllm serve org/model")
        assert [entry.serving for entry in roster.entries.values()] == [True, False]
    assert report.plain(plan, roster, 1.0, ",".join)["changed"] is False
    service = launcher.hosts["gpu1"].services["serve"]
    assert service.command == ("sh", "-c", "exec vllm serve org/model")
    assert service.environment == {"HF_HOME": "/cache", "HF_HUB_CACHE": "/cache/hub", "HF_HUB_OFFLINE": "1"}
    assert "serve" not in launcher.hosts["gpu2"].services
    await take_down(plan, launcher)
    assert launcher.hosts["gpu1"].services == {}


async def test_a_command_that_ends_fails_its_host(coordinator: Coordinator) -> None:
    good, bad = host("gpu1"), host("gpu2")

    async def end() -> None:
        async with asyncio.timeout(60):
            while "serve" not in bad.services:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        bad.ended("serve")

    (plan, roster, _), _ = await asyncio.gather(run(MemoryLauncher(good, bad), coordinator, serve="vllm"), end())
    assert [entry.name for entry in roster.done] == ["gpu1"]
    found = report.plain(plan, roster, 1.0, ",".join)["nodes"]
    assert found["gpu1"]["serving"] is True
    assert "the command has ended" in found["gpu2"]["reason"]
    assert "serving" not in found["gpu2"]


def loads(daemon: MemoryDaemon, times: list[Sequence[str]]) -> Callable[[Sequence[str], bytes], Completed]:
    """`p2pmodel` on a host: its fetch loads the model, and the daemon hears of it."""

    def program(command: Sequence[str], stdin: bytes) -> Completed:
        if command[1] == "doctor":
            return doctor()(command, stdin)
        times.append(command)
        daemon.engine = "answered" if "--prompt" in command else "loaded"
        answer = {"answer": {"first_token_seconds": 0.5}} if "--prompt" in command else {}
        return Completed(0, json.dumps({"loading": {"load_seconds": 2.0, **answer}}).encode(), b"")

    return program


async def test_a_model_is_loaded_once_on_each_host(coordinator: Coordinator) -> None:
    hosts, times = [host("gpu1"), host("gpu2")], list[Sequence[str]]()
    for each in hosts:
        each.programs["p2pmodel"] = loads(each.daemon, times)
    launcher = MemoryLauncher(*hosts)
    plan, roster, _ = await run(launcher, coordinator, load=True, serve="vllm")
    assert [entry.stage for entry in roster.done] == ["loaded", "loaded"]
    assert len(times) == 2
    assert f"org/model@{COMMIT}" in times[0]
    assert roster.rollout is not None
    assert (roster.rollout.spec.gates, roster.rollout.state) == (("files", "loaded"), "complete")
    assert report.plain(plan, roster, 1.0, ",".join)["nodes"]["gpu1"]["load_seconds"] == 2.0

    plan, roster, _ = await run(launcher, coordinator, load=True, serve="vllm")
    assert len(times) == 2
    assert report.plain(plan, roster, 1.0, ",".join)["changed"] is False
    # A further gate is passed, with a record, although the files are there.
    plan, roster, _ = await run(launcher, coordinator, load=True, prompt="Hello")
    assert len(times) == 4
    assert [entry.stage for entry in roster.done] == ["answered", "answered"]
    assert roster.rollout is not None
    assert (roster.rollout.spec.gates, roster.rollout.state) == (("files", "loaded", "answered"), "complete")
    assert "0.5 s to its first token" in report.words(plan, roster, 1.0)[0]
    await run(launcher, coordinator, load=True)
    assert len(times) == 4


async def test_a_model_that_cannot_be_loaded_fails_its_host(coordinator: Coordinator) -> None:
    good, bad = host("gpu1"), host("gpu2")
    good.programs["p2pmodel"] = loads(good.daemon, [])

    def program(command: Sequence[str], stdin: bytes) -> Completed:
        return doctor()(command, stdin) if command[1] == "doctor" else Completed(7, b"", b"p2pmodel: no memory\n")

    bad.programs["p2pmodel"] = program
    _, roster, _ = await run(MemoryLauncher(good, bad), coordinator, load=True)
    assert [entry.name for entry in roster.done] == ["gpu1"]
    assert "the model was not loaded: p2pmodel: no memory" in str(roster.failed[0].failure)


async def test_only_hosts_that_mirror_measure_the_mirrors(coordinator: Coordinator) -> None:
    seen: dict[str, Sequence[str]] = {}
    hosts = [MemoryHost("gpu1"), MemoryHost("gpu2")]
    for each in hosts:

        def program(command: Sequence[str], stdin: bytes, name: str = each.name) -> Completed:
            seen[name] = command
            return doctor()(command, stdin)

        each.programs["p2pmodel"] = program
    launcher = MemoryLauncher(*hosts)
    plan = plan_of(launcher, coordinator, seeders=1)
    place = CoordinatorPlace("gpu1", fixed=False)
    for where, measured in ((place, [True, False]), (plan.coordinator, [False, False])):
        await Bootstrap(dataclasses.replace(plan, coordinator=where), launcher, Told(), coordinator).examine()
        assert ["--measure" in seen[each.name] for each in hosts] == measured


SEEDS = json.dumps({"phase": "seeding", "done": 1000, "total": 1000, "download_rate": 0})


async def test_the_hosts_assemble_the_snapshot_and_a_seeder_publishes_it_beside_them(coordinator: Coordinator) -> None:
    launcher = MemoryLauncher(host("gpu1"), host("gpu2"))
    launcher.hosts["gpu1"].logs["seed"] = SEEDS
    _, roster, screen = await run(launcher, coordinator, seeders=1)
    assert [entry.stage for entry in roster.done] == ["ready", "ready"]
    assert "--assemble" in launcher.hosts["gpu1"].services["seed"].command
    assert "seed" not in launcher.hosts["gpu2"].services
    assert "mirroring" not in roster.spent
    assert roster.notes == []
    assert screen.stages[-1].startswith("fetching")


async def test_a_seeder_that_ends_is_started_once_more_and_then_named(coordinator: Coordinator) -> None:
    only = host("gpu1")
    only.daemon.rounds = 2
    began: list[ServiceSpec] = []

    async def end() -> None:
        async with asyncio.timeout(60):
            while len(began) < 2:
                await asyncio.sleep(0.01)
                if "seed" in only.services:
                    began.append(only.services["seed"])
                    only.ended("seed")
                    only.logs["seed"] = '{"phase": "finding"}\nno mirror answers'

    (plan, roster, _), _ = await asyncio.gather(run(MemoryLauncher(only), coordinator, seeders=1), end())
    assert roster.notes == ["gpu1 does not seed the snapshot: its seeder ended: no mirror answers"]
    assert report.verdict(plan, roster, "") is None


async def test_where_a_host_can_take_no_part_in_an_assembly_one_copy_is_mirrored_first(
    coordinator: Coordinator,
) -> None:
    first, private = host("gpu1"), MemoryHost("gpu2")
    private.programs["p2pmodel"] = doctor(apart="its swarm is private")
    fetched: list[TransferView] = []

    async def end() -> None:
        async with asyncio.timeout(60):
            while "seed" not in first.services:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        fetched.extend([*await first.daemon.transfers(), *await private.daemon.transfers()])
        assert "--assemble" not in first.services["seed"].command
        first.ended("seed")

    (_, roster, screen), _ = await asyncio.gather(run(MemoryLauncher(first, private), coordinator, seeders=1), end())
    assert fetched == []
    assert "mirroring on gpu1" in screen.stages
    assert roster.notes[0] == "gpu2: its swarm is private, so one copy was mirrored first"
    assert len(roster.done) == 2


async def test_all_hosts_measure_the_mirrors_where_their_samples_are_a_small_part_of_a_copy() -> None:
    names = tuple(f"gpu{number}" for number in range(8))
    for size, measuring in ((8 * 4 << 20, 1), (100 * 8 * 4 << 20, 8)):
        manifest = Manifest(REF.repo, COMMIT, (ManifestFile("model.safetensors", size, "a" * 40, "b" * 64),))
        assert len(BootstrapPlan(REF, manifest, names, CoordinatorPlace("gpu1")).measuring) == measuring


def test_the_estimate_is_of_the_slowest_link_and_of_the_mirrors_to_all_hosts_together() -> None:
    roster = Roster.of(["gpu1", "gpu2"])
    assert roster.estimate is None
    for entry in roster.entries.values():
        entry.stage, entry.missing, entry.mirrors = "passed", 1000, LinkRate(5, "measured")
    assert roster.estimate == pytest.approx(1.3 * 1000 / 10)
    roster.entries["gpu2"].link = 4.0
    assert roster.estimate == pytest.approx(1.3 * 1000 / 4)
    roster.entries["gpu1"].mirrors = None
    assert roster.estimate == pytest.approx(1.3 * 1000 / 4)


async def test_the_record_has_hosts_that_were_ready_before(coordinator: Coordinator) -> None:
    launcher = MemoryLauncher(host("gpu1"), host("gpu2"))
    await run(MemoryLauncher(launcher.hosts["gpu1"]), coordinator)
    plan, roster, _ = await run(launcher, coordinator)
    assert roster.rollout is not None
    assert [node.ready("files") for node in roster.rollout.nodes] == [True, True]
    assert roster.rollout.state == "complete"
    assert plan.needed == 2


async def test_nothing_starts_before_the_preflight_is_shown_and_a_dry_run_starts_nothing(
    coordinator: Coordinator,
) -> None:
    launcher = MemoryLauncher(host("gpu1"), host("gpu2", "failed"))
    plan, screen = plan_of(launcher, coordinator), Told()
    roster = await Bootstrap(plan, launcher, screen, coordinator).examine()
    assert screen.examined == "preflight of 2 hosts"
    assert all(not each.services and not each.files for each in launcher.hosts.values())
    assert [entry.stage for entry in roster.entries.values()] == ["passed", "failed"]
    assert await RolloutClient(coordinator).all() == []


async def test_a_clock_that_is_wrong_is_a_warning_with_its_direction(coordinator: Coordinator) -> None:
    ahead, right = host("gpu1"), host("gpu2")
    ahead.clock, right.clock = 300.0, -2.0
    plan, screen = plan_of(MemoryLauncher(ahead, right), coordinator), Told()
    roster = await Bootstrap(plan, MemoryLauncher(ahead, right), screen, coordinator).examine()
    clocks = {name: [c.found for c in entry.checks if c.name == "clock"] for name, entry in roster.entries.items()}
    assert clocks == {"gpu1": ["300 s ahead of this machine"], "gpu2": []}
    assert [entry.stage for entry in roster.entries.values()] == ["passed", "passed"]


async def test_a_daemon_that_ends_fails_its_host_at_once(coordinator: Coordinator) -> None:
    victim = host("gpu1")
    victim.daemon.rounds = 10**9
    launcher = MemoryLauncher(victim, host("gpu2"))

    async def kill() -> None:
        async with asyncio.timeout(60):
            while not victim.services or not await victim.daemon.transfers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        victim.ended("daemon")

    (_, roster, _), _ = await asyncio.gather(run(launcher, coordinator), kill())
    assert [entry.name for entry in roster.done] == ["gpu2"]
    assert "its daemon ended" in str(roster.failed[0].failure)


async def test_a_host_that_is_not_reached_for_a_moment_goes_on(coordinator: Coordinator) -> None:
    full = host("gpu1")
    full.daemon.rounds = 3

    async def cut_off() -> None:
        async with asyncio.timeout(60):
            while not full.services or not await full.daemon.transfers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        full.failure = HostUnreachable("gpu1: ssh cannot connect: no answer within 10 s")
        await asyncio.sleep(1.5)
        full.failure = None

    (_, roster, _), _ = await asyncio.gather(run(MemoryLauncher(full), coordinator), cut_off())
    assert [entry.stage for entry in roster.entries.values()] == ["ready"]


async def test_a_host_that_only_the_coordinator_hears_is_waited_for(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pmodel.cluster.bootstrap.bootstrap.SILENT_SECONDS", 0.2)
    monkeypatch.setattr("p2pmodel.cluster.bootstrap.rollout_link.STILL", 0.0)
    full = host("gpu1")
    full.daemon.rounds = 10**9

    async def cut_off() -> None:
        numbers = NodeReport("downloading", total=1000, bytes=NodeBytes(peers=10), rate=5)
        client = RolloutClient(coordinator)
        async with asyncio.timeout(60):
            while not full.services or not await full.daemon.transfers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await client.report_own("gpu1", [SnapshotReport(str(REF.repo), COMMIT, numbers)])
        full.failure = HostUnreachable("gpu1: ssh cannot connect: no answer within 10 s")
        await asyncio.sleep(2.5)
        full.failure, full.daemon.rounds = None, 1

    (_, roster, _), _ = await asyncio.gather(run(MemoryLauncher(full), coordinator), cut_off())
    assert [entry.stage for entry in roster.entries.values()] == ["ready"]


class _SlowToTell(MemoryHost):
    async def state(self, service: ServiceSpec | str) -> ServiceState:
        await asyncio.sleep(1.5)
        return await super().state(service)


async def test_a_host_that_is_ready_by_now_does_not_fail_by_an_older_look(coordinator: Coordinator) -> None:
    killed = _SlowToTell("gpu1", programs=host("gpu1").programs)
    killed.daemon.rounds = 10**9

    async def kill() -> None:
        async with asyncio.timeout(60):
            while not killed.services or not await killed.daemon.transfers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        killed.ended("daemon")
        await asyncio.sleep(0.5)
        ready = SnapshotReport(str(REF.repo), COMMIT, NodeReport("files_ready"))
        assert await RolloutClient(coordinator).report_own("gpu1", [ready])

    (_, roster, _), _ = await asyncio.gather(run(MemoryLauncher(killed), coordinator), kill())
    assert [entry.stage for entry in roster.entries.values()] == ["ready"]


async def test_hosts_that_are_late_say_how_far_they_are(coordinator: Coordinator) -> None:
    slow = host("gpu1")
    slow.daemon.rounds = 1000
    plan, roster, _ = await run(MemoryLauncher(slow), coordinator, timeout=2.0)
    assert "not ready within 2 s" in str(roster.failed[0].failure)
    assert report.verdict(plan, roster, "") is not None


async def test_a_host_with_another_version_fails_its_preflight(coordinator: Coordinator) -> None:
    seen: list[Sequence[str]] = []

    def program(command: Sequence[str], stdin: bytes) -> Completed:
        seen.append(command)
        assert Manifest.from_dict(json.loads(stdin)) == MANIFEST
        return doctor("failed", "version")(command, stdin)

    old = MemoryHost("gpu1", programs={"p2pmodel": program})
    _, roster, _ = await run(MemoryLauncher(old), coordinator)
    assert [entry.name for entry in roster.failed] == ["gpu1"]
    assert __version__ in seen[0]


@pytest.mark.parametrize("out", [b"", b"{}", b"[]", b'{"checks": 3}', b"\xff"])
async def test_what_a_host_prints_is_not_trusted(coordinator: Coordinator, out: bytes) -> None:
    odd = MemoryHost("gpu1", programs={"p2pmodel": lambda _command, _stdin: Completed(1, out, b"no \x1b[31mspace\n")})
    _, roster, _ = await run(MemoryLauncher(odd), coordinator)
    error = roster.failed[0].failure
    assert isinstance(error, P2PModelError)
    assert "p2pmodel doctor fails there" in error.what
    assert error.what.isprintable()


async def test_take_down_stops_services_and_is_idempotent(coordinator: Coordinator) -> None:
    launcher = MemoryLauncher(host("gpu1"), host("gpu2"))
    plan, _, _ = await run(launcher, coordinator)
    launcher.hosts["gpu2"].failure = HostUnreachable("gpu2: ssh cannot connect")
    for _ in range(2):
        roster = await take_down(plan, launcher)
        assert ([e.name for e in roster.done], [e.name for e in roster.failed]) == (["gpu1"], ["gpu2"])
    assert launcher.hosts["gpu1"].services == {}


def test_the_place_of_the_coordinator_is_a_host_or_a_url() -> None:
    assert CoordinatorPlace.parse("gpu001") == CoordinatorPlace(host="gpu001")
    assert CoordinatorPlace.parse("http://10.0.0.1:6969/").url == "http://10.0.0.1:6969"
    with pytest.raises(InvalidInput, match="--coordinator"):
        CoordinatorPlace.parse("http://user:secret@10.0.0.1")


@pytest.mark.parametrize(
    ("mirrors", "told"),
    [
        ([{"name": "near", "error": "", "rate": 9e6, "limit": 5000000}], LinkRate(5_000_000, "declared")),
        ([{"name": "near", "error": "", "rate": 4e6, "limit": 5000000}], LinkRate(4_000_000, "measured")),
        (
            [
                {"name": "near", "error": "", "rate": 4e6, "limit": None},
                {"name": "far", "error": "", "rate": None, "limit": None},
                {"name": "gone", "error": "no route", "rate": None, "limit": 1},
            ],
            LinkRate(4_000_000, "measured"),
        ),
        ([{"name": "near", "error": "", "rate": None, "limit": None}], None),
        ([], None),
    ],
)
async def test_the_record_has_the_rate_of_the_mirrors_that_the_preflight_found(
    coordinator: Coordinator, mirrors: list[dict[str, object]], told: LinkRate | None
) -> None:
    named = host("gpu1")

    def program(command: Sequence[str], stdin: bytes) -> Completed:
        plain = json.loads(doctor()(command, stdin).out)
        plain["node"]["mirrors"] = mirrors
        return Completed(0, json.dumps(plain).encode(), b"")

    named.programs["p2pmodel"] = program
    _, roster, _ = await run(MemoryLauncher(named), coordinator)
    assert roster.rollout is not None
    assert roster.rollout.nodes[0].links == NodeLinks(mirrors=told)
