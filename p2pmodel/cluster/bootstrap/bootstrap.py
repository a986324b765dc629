"""One bootstrap: preflight everywhere, then coordinator, daemons, the fetch on every host at once, and seeders.

1. A host that fails at any step takes no further part; the others go on.
2. Nothing is started before the preflight has been shown.
3. What runs is reused, what is ready stays as it is: a second run changes nothing.
4. A cancelled run leaves the hosts working.
5. Without a torrent the hosts assemble it, and a seeder publishes what its host's daemon has. Only where a host cannot
   take part, the seeders mirror the snapshot first.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Protocol

from p2pmodel.client import NoDaemon
from p2pmodel.cluster.bootstrap.node_steps import (
    DAEMON,
    DAEMON_SECONDS,
    DOCTOR_SECONDS,
    SERVE,
    NodeSteps,
    last_line,
)
from p2pmodel.cluster.bootstrap.plan import BootstrapPlan
from p2pmodel.cluster.bootstrap.rollout_link import RolloutLink
from p2pmodel.cluster.bootstrap.roster import WITH_FILES, FanOut, HostEntry, Roster, StageClock, Step
from p2pmodel.cluster.bootstrap.services import COORDINATOR, SEEDER, ClusterServices
from p2pmodel.cluster.carried import INSTALL_SECONDS, described
from p2pmodel.cluster.launcher import Launcher, RemoteHost
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.plain_json import parse_json
from p2pmodel.core.sizes import duration, human
from p2pmodel.core.tasks import together
from p2pmodel.errors import LocalResource, P2PModelError, Unavailable

REACH_SECONDS = 120.0


async def check_reach(plan: BootstrapPlan, coordinator: str, fan_out: FanOut, roster: Roster) -> None:
    """Connect from the coordinator's host ("": from the first one) to each daemon; those not reached have failed."""
    hosts = [entry for entry in roster.at("starting") if entry.peer]
    others = {entry.peer: entry for entry in hosts if not ListenAddress.parse(entry.peer).loopback}
    if not others:
        return
    unreached: dict[str, str] = {}
    observer = coordinator or hosts[0].name

    async def connect(host: RemoteHost) -> None:
        look = await host.look()
        command = [*(await plan.command_on(host, look)), "doctor", "--json"]
        done = await host.run([*command, *(f"--reach={peer}" for peer in others)], timeout=REACH_SECONDS)
        for check in parse_json(done.out)["checks"]:
            peer = str(check["found"]).partition(": ")[0]
            if check["name"] == "reach" and check["outcome"] == "failed" and peer in others:
                unreached[peer] = printable(str(check["found"]), 200)

    try:
        await fan_out.on(observer, connect, within=REACH_SECONDS, what="the check of ports")
    except (P2PModelError, ValueError, KeyError, TypeError) as error:
        roster.notes.append(f"{observer} could not check the ports of the others: {printable(str(error), 200)}")
    for peer, reason in unreached.items():
        others[peer].failed(
            Unavailable(f"{others[peer].name}: {observer} cannot connect to {reason}", hint="open that port")
        )


START_SECONDS = 330.0
"""Bound on the start of a fetch: longer than the daemon's own bound."""
LOOK_SECONDS = 60.0
SEEDER_SECONDS = 60.0
"""Bound on the time from the last host's files until the seeders have published them."""
_PAUSE = 0.5
SILENT_SECONDS = 90.0
"""A host that neither ssh reaches nor the coordinator hears of for so long has failed. A full link delays both."""


class BootstrapScreen(Protocol):
    """Shows a bootstrap."""

    def stage(self, text: str) -> None:
        """A stage has begun."""

    def preflight(self, roster: Roster) -> None:
        """The preflight of all hosts."""

    def progress(self, roster: Roster) -> None:
        """How far the hosts are; called every second or so."""


class Bootstrap:
    """One run of a plan on the hosts that `launcher` reaches."""

    def __init__(
        self, plan: BootstrapPlan, launcher: Launcher, screen: BootstrapScreen, given: Coordinator | None = None
    ) -> None:
        self._plan = plan
        self._screen = screen
        self._fan_out = FanOut(launcher, plan.fanout)
        self._steps = NodeSteps(plan)
        self._services = ClusterServices(plan, self._fan_out, given)
        self._rollout: RolloutLink | None = None
        self._seeders: list[HostEntry] = []
        """The hosts with a seeder that this run has started beside the fetch."""
        self._silent: dict[str, tuple[float, P2PModelError]] = {}
        self._clock = StageClock()
        self.roster = Roster.of(plan.hosts, plan.last_stage)
        self.roster.notes += plan.settings.kept if plan.settings else ()

    async def examine(self) -> Roster:
        """The preflight everywhere; starts and changes nothing."""
        self._clock.enter("preflight")
        package = self._plan.package
        carrying = f", with p2pmodel carried there ({described(package)})" if package else ""
        self._screen.stage(f"preflight of {len(self.roster.entries)} hosts{carrying}")
        entries = self.roster.entries.values()
        within = DOCTOR_SECONDS + (INSTALL_SECONDS if package else 0.0)
        await self._fan_out.each(entries, self._steps.examine, within=within, what="the preflight")
        self._screen.preflight(self.roster)
        return self.roster

    async def run(self) -> Roster:
        """Preflight, start and follow until all hosts are ready or have failed, or the time is over."""
        deadline = time.monotonic() + self._plan.timeout
        await self.examine()
        async with AsyncExitStack() as stack:
            if len(self.roster.done) + len(self.roster.failed) < len(self.roster.entries):
                await self._start(deadline, stack)
            await self._follow(deadline)
            await self._see_seeders()
            await self._each(self._serving, self._steps.check_serving, LOOK_SECONDS, "a look at the command")
            if self._rollout is not None:
                self.roster.rollout = await self._rollout.conclude(list(self.roster.entries.values()))
        self.roster.spent = self._clock.seconds
        return self.roster

    @property
    def _serving(self) -> list[HostEntry]:
        """The hosts on which the plan's command was started a while ago."""
        return [entry for entry in self.roster.done if entry.began_serving]

    async def _start(self, deadline: float, stack: AsyncExitStack) -> None:
        self._clock.enter("coordinator")
        self._screen.stage("starting the coordinator")
        passed = [*self.roster.at("passed", *WITH_FILES)]
        running = [entry.name for entry in passed if entry.look and COORDINATOR in entry.look.services]
        await self._services.start_coordinator([entry.name for entry in passed], running)
        if self._services.host != self._plan.coordinator.host:
            self.roster.notes.append(f"the coordinator is on {self._services.host}")
        coordinator = self._services.coordinator
        self._steps.coordinator_url, self._steps.member_token = coordinator.url, coordinator.member_token
        starting = self.roster.at("passed")
        if not starting or self._plan.coordinator.url:
            await self._begin_rollout(stack)
        if not starting:
            self._screen.stage(f"the files are there; the coordinator is {coordinator}")
            return
        self._clock.enter("daemons")
        self._screen.stage(f"starting daemons; the coordinator is {coordinator}")
        # A daemon waits for its coordinator, so both start at the same time.
        daemons = self._each(starting, self._steps.start_daemon, DAEMON_SECONDS * 2, "the daemon's start")
        await together([daemons] if self._rollout else [daemons, self._begin_rollout(stack)])
        self._clock.enter("ports")
        await check_reach(self._plan, self._services.host, self._fan_out, self.roster)
        hosts = self.roster.at("starting")
        seeders, mirroring = list[HostEntry](), list[HostEntry]()
        if self._plan.seeders and hosts and not self.roster.at(*WITH_FILES) and not await self._services.has_torrent():
            seeders = hosts[: self._plan.seeders]
        apart = [entry for entry in hosts if entry.apart]
        if seeders and apart:
            self.roster.notes.append(f"{_named(apart)}: {apart[0].apart}, so one copy was mirrored first")
            seeders, mirroring = [], await self._mirror(seeders, deadline)
        if self._rollout is not None:
            await self._rollout.tell_mirrors(mirroring or hosts, mirroring=bool(mirroring))
        self._clock.enter("fetching")
        self._screen.stage(f"fetching {human(self._plan.manifest.total_size)} on {len(hosts)} hosts")
        await self._each(hosts, self._steps.start_fetch, START_SECONDS, "the start of the fetch")
        # After the daemons: they have their snapshots' locks by now, and the seeders take the files from the cache.
        self._seeders = [entry for entry in seeders if entry.stage == "fetching"]
        await self._services.start_seeders([entry.name for entry in self._seeders], assemble=True)

    async def _see_seeders(self) -> None:
        """Wait until the seeders that were started have published what their hosts have. One that ended is started once
        more."""
        names = [entry.name for entry in self._seeders if entry.has_files]
        failures = await self._services.start_seeders(names, assemble=True)
        running = [name for name in names if name not in failures]
        failures |= await self._services.seeding(running, SEEDER_SECONDS)
        self.roster.notes += (f"{name} does not seed the snapshot: {why}" for name, why in failures.items())

    async def _mirror(self, hosts: list[HostEntry], deadline: float) -> list[HostEntry]:
        """Have seeders on these hosts mirror the snapshot. Returns the hosts, or none if they could not."""
        names = [entry.name for entry in hosts]
        self._clock.enter("mirroring")
        self._screen.stage(f"mirroring on {', '.join(names)}")
        if failure := await self._services.seed_from(names, deadline, self._screen.stage):
            self.roster.notes.append(f"{failure}; the hosts mirror the snapshot together")
            return []
        return hosts

    async def _begin_rollout(self, stack: AsyncExitStack) -> None:
        await self._services.answered()
        link = RolloutLink(self._plan, self._services.coordinator, self.roster.notes.append)
        self._rollout = await stack.enter_async_context(link)
        await self._rollout.tell(self.roster.entries.values())

    async def _follow(self, deadline: float) -> None:
        """Each host is followed on its own: one with a slow link, or a slow load, delays no other."""
        self._clock.enter("fetching")
        hosts = self.roster.at("fetching", *WITH_FILES)
        following = {asyncio.create_task(self._follow_one(entry)): entry for entry in hosts}
        try:
            left = set(following)
            while left and time.monotonic() < deadline:
                self._screen.progress(self.roster)
                for entry in self.roster.at("fetching"):
                    self._hear(entry)
                _, left = await asyncio.wait(left, timeout=_PAUSE)
            if serving := [task for task in left if following[task].stage == self._plan.last_stage]:
                await asyncio.wait(serving, timeout=LOOK_SECONDS)
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
        for entry in self.roster.at("fetching", "ready", "loading"):
            if entry.stage != self._plan.last_stage:
                _, silent = self._silent.get(entry.name, (0.0, None))
                entry.failed(_late(entry, self._plan.timeout, silent))
        self._screen.progress(self.roster)

    async def _follow_one(self, entry: HostEntry) -> None:
        while entry.stage == "fetching":
            began = time.monotonic()
            if self._rollout is None or self._rollout.node(entry.name) is None:
                await self._look(entry)
            # Many looks take the launcher's core for a while: leave it as much time for the rest.
            if entry.stage == "fetching":
                await asyncio.sleep(max(1.0, time.monotonic() - began))
        if self._plan.load and entry.stage == "ready":
            await self._each([entry], self._steps.load, self._plan.timeout, "the load")
        if self._plan.serve and entry.stage == self._plan.last_stage:
            await self._each([entry], self._steps.serve, LOOK_SECONDS, "the start of the command")

    async def _each(self, entries: Iterable[HostEntry], step: Step, within: float, what: str) -> None:
        await self._fan_out.each(entries, step, within=within, what=what)

    def _hear(self, entry: HostEntry) -> None:
        """Take what the coordinator has heard of the host lately."""
        node = self._rollout.node(entry.name) if self._rollout else None
        try:
            if node is not None:
                self._steps.heard(entry, node)
        except P2PModelError as error:
            entry.failed(error)

    async def _look(self, entry: HostEntry) -> None:
        """Take a look at the fetch. A host that cannot be asked, for which a full link suffices, has not failed yet."""
        try:
            await self._fan_out.on(
                entry.name, lambda host: self._ask(host, entry), within=LOOK_SECONDS, what="a look at the fetch"
            )
        except P2PModelError as error:
            if entry.stage == "fetching":  # else the coordinator has heard meanwhile that it is ready
                self._not_seen(entry, error)
        else:
            self._silent.pop(entry.name, None)

    def _not_seen(self, entry: HostEntry, error: P2PModelError) -> None:
        if not isinstance(error, Unavailable):
            entry.failed(error)
        elif self._rollout is not None and self._rollout.hears(entry.name):
            self._silent.pop(entry.name, None)
        else:
            since, _ = self._silent.setdefault(entry.name, (time.monotonic(), error))
            if time.monotonic() - since > SILENT_SECONDS:
                entry.failed(error)

    async def _ask(self, host: RemoteHost, entry: HostEntry) -> None:
        try:
            view = await self._steps.view(host, entry)
        except NoDaemon:
            await self._check_daemon(host)
            raise
        try:
            self._steps.seen(entry, view)
        except P2PModelError as error:  # of the fetch itself: also one that some source did not answer
            entry.failed(error)

    async def _check_daemon(self, host: RemoteHost) -> None:
        """Raise LocalResource if the daemon that this bootstrap started has ended, and nothing starts it again."""
        state = await host.state(DAEMON)
        if state.known and not state.running:
            text = f"{host.name}: its daemon ended; the end of its log: {last_line(state.log)}"
            raise LocalResource(text, hint="run the same command again: it resumes")


async def take_down(plan: BootstrapPlan, launcher: Launcher) -> Roster:
    """Stop what bootstraps have started on the hosts, and the coordinator. Files stay."""
    hosts = dict.fromkeys([*plan.hosts, *filter(None, [plan.coordinator.host])])
    roster = Roster.of(hosts)

    async def stop(host: RemoteHost, entry: HostEntry) -> None:
        for name in (SERVE, SEEDER, DAEMON, COORDINATOR):
            await host.stop(name)
        entry.stage = "ready"

    await FanOut(launcher, plan.fanout).each(roster.entries.values(), stop, within=LOOK_SECONDS, what="the stop")
    return roster


def _named(entries: list[HostEntry]) -> str:
    return entries[0].name + (f" and {len(entries) - 1} more hosts" if len(entries) > 1 else "")


def _late(entry: HostEntry, timeout: float, silent: P2PModelError | None) -> P2PModelError:
    if entry.has_files:
        text = f"{entry.name}: the model was not loaded within {duration(timeout)}"
        return Unavailable(text, hint="the files are there: give it more time with --timeout")
    now = entry.progress
    what = f"at {human(now.rate)}/s, {now.activity}" if silent is None else silent.what.removeprefix(f"{entry.name}: ")
    text = f"{entry.name}: not ready within {duration(timeout)}: {entry.share:.0%}, {what}"
    return Unavailable(text, hint="it goes on; the same command follows it")
