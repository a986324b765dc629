"""The coordinator and the seeders of a bootstrap: reused where they run, started where not."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from p2pmodel.cluster.bootstrap.node_steps import last_line
from p2pmodel.cluster.bootstrap.plan import COORDINATOR_PORT, SEEDER_PORT, BootstrapPlan
from p2pmodel.cluster.bootstrap.roster import FanOut
from p2pmodel.cluster.launcher import RemoteHost, ServiceSpec, ServiceState
from p2pmodel.coordinator.client.catalog import find, list_torrents
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.tokens import check_token, new_token
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.plain_json import parse_json
from p2pmodel.core.sizes import human
from p2pmodel.errors import AccessDenied, P2PModelError, Unavailable

STATE_DIR = "P2PMODEL_STATE_DIR"
COORDINATOR, SEEDER = "coordinator", "seed"
STEP_SECONDS = 60.0
CALL_SECONDS = 5.0
_PAUSE = 0.25
_LOOK_EVERY = 1.0
"""Seconds between two looks whether a coordinator that does not answer yet has ended."""
_SEED_PAUSE = 1.0
SEEDING = "seeding"
"""How the progress of a seeder begins that has published the snapshot."""


@dataclass
class _Looked:
    reached: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)


class ClusterServices:
    """Starts or finds the coordinator of a plan, and its seeders. `given`: the coordinator of the settings, for a plan
    that names a URL."""

    def __init__(self, plan: BootstrapPlan, fan_out: FanOut, given: Coordinator | None) -> None:
        self._plan = plan
        self._fan_out = fan_out
        self.coordinator = given or Coordinator("")
        self.host = plan.coordinator.host
        """The coordinator's host; "" for one at a URL."""

    async def start_coordinator(self, passed: list[str], running: list[str]) -> None:
        """Start it, unless it runs. Where its host is not fixed, a host has it that runs one already; the hosts that
        `passed` the preflight are known to, if they are `running` it. Raises LocalResource or Unavailable."""
        place = self._plan.coordinator
        if place.host:
            if not place.fixed:
                self.host = await self._chosen(passed, running)
            await self._fan_out.on(self.host, self._coordinator_on, within=STEP_SECONDS, what="the coordinator")

    async def answered(self) -> None:
        """Return once the coordinator answers. Raises AccessDenied, and Unavailable with the end of its log."""
        began = looked = time.monotonic()
        while True:
            try:
                await list_torrents(self.coordinator, CALL_SECONDS)
            except AccessDenied:
                raise
            except P2PModelError as error:
                now, log = time.monotonic(), ""
                if self._plan.coordinator.host and now - looked > _LOOK_EVERY:
                    looked, log = now, await self._log(self.host, COORDINATOR)
                if now - began > STEP_SECONDS or log:
                    raise Unavailable(f"{error.what}{f' ({log})' if log else ''}", hint=_UNREACHED) from None
            else:
                return
            await asyncio.sleep(_PAUSE)

    async def _chosen(self, passed: list[str], running: list[str]) -> str:
        """The host of the coordinator: one that runs it, also one that this bootstrap leaves alone; else the default;
        else the first that passed."""
        default = self.host
        if default in running or not (passed or self._plan.beyond):
            return default
        if running:
            return running[0]
        usable = default in passed
        beyond = self._plan.beyond
        if default in beyond:
            looked = await self._look_for_one([default])
            if default in looked.running:
                return default
            usable = default in looked.reached
            beyond = tuple(name for name in beyond if name != default)
        others = (await self._look_for_one(beyond)).running
        if others:
            return min(others, key=beyond.index)
        return default if usable or not passed else passed[0]

    async def _look_for_one(self, hosts: Sequence[str]) -> "_Looked":
        """Which of `hosts` are reached, and run a coordinator."""
        found = _Looked()

        async def look(host: RemoteHost) -> None:
            if (await host.state(COORDINATOR)).running:
                found.running.append(host.name)
            found.reached.append(host.name)

        looks = (self._fan_out.on(name, look, within=STEP_SECONDS, what="a look for a coordinator") for name in hosts)
        await asyncio.gather(*looks, return_exceptions=True)
        return found

    async def _coordinator_on(self, host: RemoteHost) -> None:
        look = await host.look()
        folder = f"{look.state_dir}/cluster"
        member, publisher = [await _kept_token(host, f"{folder}/{name}.token") for name in ("member", "bootstrap")]
        address = ListenAddress(look.address or host.name, COORDINATOR_PORT)
        listen = ["--listen", str(address), "--token-file", f"{folder}/member.token"]
        tokens = ["--publish-token-file", f"{folder}/bootstrap.token", "--state-dir", f"{look.state_dir}/coordinator"]
        command = (*(await self._plan.command_on(host, look)), "coordinator", *listen, *tokens)
        # Of the nodes' settings none concerns it: roll-outs of other models, with other mirrors, share it.
        kept = {name: value for name, value in self._plan.environment.items() if name == STATE_DIR}
        await host.start(ServiceSpec(COORDINATOR, command, kept))
        self.coordinator = Coordinator(f"http://{address}", member, publisher)

    async def has_torrent(self) -> bool:
        """Whether the coordinator has the torrent of the snapshot."""
        ref = Reference(self._plan.ref.repo, self._plan.manifest.commit)
        return (await find(ref, [self.coordinator], CALL_SECONDS)).metainfo is not None

    async def seed_from(self, hosts: list[str], deadline: float, show: Callable[[str], None]) -> str:
        """Start a seeder on each of `hosts`, which mirrors the snapshot, and wait until the torrent is in the catalog.

        Returns why there is none; "" if there is. Raises Unavailable at the `deadline`.
        """
        failures = await self.start_seeders(hosts, assemble=False)
        while len(failures) < len(hosts) and not await self.has_torrent():
            if time.monotonic() > deadline:
                raise Unavailable("the seeder has not mirrored the snapshot in time", hint="--timeout is too short")
            lines = {}
            for name in [each for each in hosts if each not in failures]:
                try:
                    state = await self._state(name, SEEDER)
                except P2PModelError as error:
                    lines[name] = str(error)
                    continue
                if state.running:
                    lines[name] = seeder_progress(state.log)
                else:
                    failures[name] = f"its seeder ended: {last_line(state.log)}"
            show("; ".join(f"{name}: {line}" for name, line in lines.items()))
            await asyncio.sleep(_SEED_PAUSE)
        return "" if len(failures) < len(hosts) else "; ".join(f"{name}: {why}" for name, why in failures.items())

    async def start_seeders(self, hosts: Sequence[str], *, assemble: bool) -> dict[str, str]:
        """Start a seeder on each of `hosts`, unless it runs; it may `assemble` the snapshot with the nodes. Returns why
        one was not started, by host."""
        failures: dict[str, str] = {}
        for name in hosts:
            try:
                step = partial(self._seeder_on, assemble=assemble)
                await self._fan_out.on(name, step, within=STEP_SECONDS, what="the seeder")
            except P2PModelError as error:
                failures[name] = str(error)
        return failures

    async def seeding(self, hosts: Sequence[str], within: float) -> dict[str, str]:
        """Wait until the seeders on `hosts` seed, `within` seconds. Returns why one does not, by host."""
        ends, failures, left = time.monotonic() + within, dict[str, str](), list(hosts)
        while left:
            for name in tuple(left):
                try:
                    state = await self._state(name, SEEDER)
                except P2PModelError as error:
                    failures[name] = str(error)
                    continue
                if not state.running:
                    failures[name] = f"its seeder ended: {last_line(state.log)}"
                elif (now := seeder_progress(state.log)).startswith(SEEDING):
                    left.remove(name)
                elif time.monotonic() > ends:
                    failures[name] = f"its seeder is still at: {now}"
            left = [name for name in left if name not in failures]
            if left:
                await asyncio.sleep(_SEED_PAUSE)
        return failures

    async def _seeder_on(self, host: RemoteHost, *, assemble: bool) -> None:
        look = await host.look()
        folder = f"{look.state_dir}/cluster"
        await host.write(f"{folder}/member.token", f"{self.coordinator.member_token}\n".encode())
        await host.write(f"{folder}/seeder.token", f"{self.coordinator.publisher}\n".encode())
        address = ListenAddress(look.address or host.name, SEEDER_PORT)
        environment = {
            **await self._plan.environment_on(host, look),
            "P2PMODEL_COORDINATORS": self.coordinator.url,
            "P2PMODEL_COORDINATOR_TOKEN_FILE": f"{folder}/member.token",
            "P2PMODEL_PUBLISH_TOKEN_FILE": f"{folder}/seeder.token",
        }
        options = ["--listen", str(address), "--token-file", f"{folder}/member.token", "--progress", "json"]
        options += ["--assemble"] if assemble else []
        command = (*(await self._plan.command_on(host, look)), "seed", str(self._plan.ref), *options)
        seeder = ServiceSpec(SEEDER, command, environment)
        if not (await host.state(seeder)).same:
            # One of another model: the daemons that have that one are its sources by now.
            await host.stop(SEEDER)
        await host.start(seeder)

    async def _log(self, name: str, service: str) -> str:
        """The last line of a service that has ended; "" while it runs."""
        state = await self._state(name, service)
        return "" if state.running else last_line(state.log)

    async def _state(self, name: str, service: str) -> ServiceState:
        found: list[ServiceState] = []

        async def look(host: RemoteHost) -> None:
            found.append(await host.state(service))

        await self._fan_out.on(name, look, within=STEP_SECONDS, what=f"a look at the {service}")
        return found[0]


_UNREACHED = "check that this machine reaches it, or name another host with --coordinator"


async def _kept_token(host: RemoteHost, path: str) -> str:
    """The token in the file on the host, or a new one that is written there: a running coordinator keeps its own."""
    done = await host.run(["cat", path])
    if done.code == 0:
        return check_token(done.out.decode(errors="replace"), path)
    token = new_token()
    await host.write(path, f"{token}\n".encode())
    return token


def seeder_progress(log: str) -> str:
    """The last progress in the log of a seeder, in words."""
    for line in reversed(log.splitlines()):
        try:
            plain = parse_json(line)
            phase, done, total, rate = (plain[key] for key in ("phase", "done", "total", "download_rate"))
            share = f" {done * 100 // total}% of {human(total)}" if total else ""
            return f"{phase}{share}" + (f", {human(rate)}/s" if rate else "")
        except (ValueError, KeyError, TypeError):
            continue
    return "starting"
