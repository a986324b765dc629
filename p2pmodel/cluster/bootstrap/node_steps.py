"""The steps on one host: look, preflight, start of the daemon, start of the fetch, and a look at its progress."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from p2pmodel import __version__
from p2pmodel.client import NoDaemon
from p2pmodel.cluster import scripted_host as scripts
from p2pmodel.cluster.bootstrap.plan import INSTALL, MISSING, BootstrapPlan, Stage
from p2pmodel.cluster.bootstrap.roster import HostEntry, HostProgress, LoadTimes
from p2pmodel.cluster.launcher import Completed, DaemonControl, HostLook, RemoteHost, ServiceSpec
from p2pmodel.cluster.preflight.checks import SKEWED, DoctorCheck
from p2pmodel.coordinator.rollout.links import LinkRate, narrowest, together
from p2pmodel.coordinator.rollout.nodes import RolloutNode
from p2pmodel.core.content.names import Reference, printable, transfer_id
from p2pmodel.core.plain_json import parse_json
from p2pmodel.core.progress.views import SERVING, EngineState, NodeView, TransferView
from p2pmodel.errors import Conflict, LocalResource, Unavailable, restored

DOCTOR_SECONDS = 120.0
DAEMON_SECONDS = 60.0
"""From the start of a daemon until it answers."""
NOT_FOUND = 127
DAEMON, SERVE = "daemon", "serve"
_PAUSE = 0.25
ANSWER_TOKENS = 16
"""Most tokens of an answer, of which the first one counts."""
SERVES_AFTER = 1.0
"""Seconds for which a command must run: one that cannot start mostly ends at once."""
_REACHED: Mapping[Stage, tuple[EngineState, ...]] = {"loaded": SERVING, "answered": SERVING[-1:]}
"""The states that an engine reports once a host is in the stage."""
_CHECKS = TypeAdapter(tuple[DoctorCheck, ...])


class NodeSteps:
    """The steps of one plan. `coordinators`: where nodes find the coordinator, once that is known."""

    def __init__(self, plan: BootstrapPlan) -> None:
        self._plan = plan
        self._ident = transfer_id(plan.ref.repo, plan.manifest.commit)
        self._manifest = json.dumps(plan.manifest.to_dict()).encode()
        self.coordinator_url = ""
        self.member_token = ""
        self._began = 0.0

    async def examine(self, host: RemoteHost, entry: HostEntry) -> None:
        """Look at the host. Where its daemon has the snapshot, it is ready; else run the preflight there."""
        look = entry.look = await host.look()
        try:
            async with host.control(look.socket) as daemon:
                if await self._is_ready(daemon, entry):
                    return
        except NoDaemon:
            pass
        await self._preflight(host, entry, look)

    async def _is_ready(self, daemon: DaemonControl, entry: HostEntry) -> bool:
        node = await _known(daemon, entry)
        view = await self._view(daemon)
        if node.version != __version__ or view is None or not view.complete:
            return False
        entry.stage, entry.progress, entry.seconds = "ready", HostProgress.of_transfer(view), 0.0
        if self._plan.load and view.engine_reached in _REACHED[self._plan.last_stage]:
            entry.stage = self._plan.last_stage  # a model that was loaded from these files is not loaded again
        return True

    async def _preflight(self, host: RemoteHost, entry: HostEntry, look: HostLook) -> None:
        options = ["--manifest", "-", "--json", "--expect-version", __version__, "--socket", look.socket]
        options += ["--load"] if self._plan.load else []
        options += ["--measure"] if entry.name in self._plan.measuring else []
        done = await self._run(host, look, ["doctor", *options], stdin=self._manifest, timeout=DOCTOR_SECONDS)
        found = _doctored(host.name, done)
        entry.checks = (*found.checks, *_clock(look))
        entry.missing, entry.link, entry.mirrors, entry.apart = found.missing, found.link, found.mirrors, found.apart
        failed = [check.line for check in entry.checks if check.outcome == "failed"]
        if failed:
            raise LocalResource(f"{host.name}: {'; '.join(failed)}")
        entry.stage = "passed"

    async def start_daemon(self, host: RemoteHost, entry: HostEntry) -> None:
        """Start the daemon, unless one runs, and wait until it answers."""
        assert entry.look is not None
        entry.stage = "starting"
        look = entry.look
        try:
            async with host.control(look.socket) as daemon:
                await _known(daemon, entry)
                return
        except NoDaemon:
            pass
        token = f"{look.state_dir}/cluster/member.token"
        if self.member_token:
            await host.write(token, f"{self.member_token}\n".encode())
        command, environment = await self._plan.command_on(host, look), await self._plan.environment_on(host, look)
        await host.start(self._daemon(host.name, command, environment, look, token))
        async with asyncio.timeout(DAEMON_SECONDS):
            await self._until_it_answers(host, entry)

    def _daemon(
        self, name: str, command: tuple[str, ...], settings: Mapping[str, str], look: HostLook, token: str
    ) -> ServiceSpec:
        environment = {**settings, "P2PMODEL_COORDINATORS": self.coordinator_url, "P2PMODEL_NODE_NAME": name}
        if self.member_token:
            environment["P2PMODEL_COORDINATOR_TOKEN_FILE"] = token
        return ServiceSpec(DAEMON, (*command, "daemon", "--socket", look.socket), environment)

    async def _until_it_answers(self, host: RemoteHost, entry: HostEntry) -> None:
        assert entry.look is not None
        appears = [
            "sh",
            "-c",
            scripts.APPEARS,
            "sh",
            entry.look.socket,
            scripts.command_file(entry.look.state_dir, DAEMON),
        ]
        while True:
            await host.run(appears)
            try:
                async with host.control(entry.look.socket) as daemon:
                    await _known(daemon, entry)
                    return
            except NoDaemon:
                state = await host.state(DAEMON)
                if not state.running:
                    text = f"{host.name}: its daemon ended; the end of its log: {last_line(state.log)}"
                    raise LocalResource(text) from None
            await asyncio.sleep(_PAUSE)

    async def start_fetch(self, host: RemoteHost, entry: HostEntry) -> None:
        """Have the daemon fetch the snapshot. Raises Conflict if the revision means another commit there."""
        assert entry.look is not None
        self._began = self._began or time.monotonic()
        async with host.control(entry.look.socket) as daemon:
            view = await daemon.start(str(self._plan.ref))
        if view.commit != self._plan.manifest.commit:
            raise Conflict(
                f"{host.name}: {self._plan.ref} is {view.commit[:12]} there, not {self._plan.manifest.commit[:12]}",
                hint="the revision has moved: run the command again, or name the commit",
            )
        entry.stage = "fetching"
        self.seen(entry, view)

    async def view(self, host: RemoteHost, entry: HostEntry) -> TransferView:
        """The fetch as the daemon sees it. Raises Conflict if it is gone."""
        assert entry.look is not None
        async with host.control(entry.look.socket) as daemon:
            view = await self._view(daemon)
        if view is None:
            raise Conflict(f"{host.name}: the fetch was cancelled there", hint="run the same command again")
        return view

    async def load(self, host: RemoteHost, entry: HostEntry) -> None:
        """Load the model there, from its cache, and have it answer the plan's prompt."""
        assert entry.look is not None
        entry.stage = "loading"
        plan = self._plan
        # The commit, which no mirror needs to be asked for.
        ref = Reference(plan.ref.repo, plan.manifest.commit)
        command = ["fetch", str(ref), "--load", "--json", "-q", "--socket", entry.look.socket]
        if plan.prompt is not None:
            command += ["--prompt", plan.prompt, "--max-new-tokens", str(ANSWER_TOKENS)]
        done = await self._run(host, entry.look, command, timeout=plan.timeout)
        if done.code:
            raise LocalResource(f"{host.name}: the model was not loaded: {printable(done.reason, 300)}")
        entry.loaded = _load_times(done)
        entry.stage = plan.last_stage

    async def serve(self, host: RemoteHost, entry: HostEntry) -> None:
        """Start the plan's command, as a service that keeps running, and see that it does."""
        # The engine asks no hub: what it needs is here.
        environment = {"HF_HUB_CACHE": entry.cache_dir, "HF_HUB_OFFLINE": "1"}
        if entry.cache_dir.endswith("/hub"):
            environment["HF_HOME"] = entry.cache_dir.removesuffix("/hub")
        entry.began_serving = await host.start(ServiceSpec(SERVE, ("sh", "-c", self._plan.serve), environment))
        entry.serving = True
        ends = time.monotonic() + (SERVES_AFTER if entry.began_serving else 0.0)
        await self.check_serving(host, entry)
        while time.monotonic() < ends:
            await asyncio.sleep(_PAUSE)
            await self.check_serving(host, entry)

    async def check_serving(self, host: RemoteHost, entry: HostEntry) -> None:
        """Raise LocalResource if the plan's command has ended."""
        state = await host.state(SERVE)
        if not state.running:
            entry.serving = False
            text = f"{host.name}: the command has ended: {last_line(state.log)}"
            raise LocalResource(text, hint=f"see its log there: {_log_of(entry)}")

    async def _run(
        self, host: RemoteHost, look: HostLook, arguments: Sequence[str], *, stdin: bytes = b"", timeout: float
    ) -> Completed:
        command = await self._plan.command_on(host, look)
        environment = [f"{name}={value}" for name, value in (await self._plan.environment_on(host, look)).items()]
        prefix = ["env", *environment] if environment else []
        done = await host.run([*prefix, *command, *arguments], stdin=stdin, timeout=timeout)
        if done.code == NOT_FOUND:
            raise LocalResource(f"{host.name}: {MISSING}: {done.reason}", hint=INSTALL)
        return done

    async def _view(self, daemon: DaemonControl) -> TransferView | None:
        return next((view for view in await daemon.transfers() if view.id == self._ident), None)

    def seen(self, entry: HostEntry, view: TransferView) -> None:
        """Take what the daemon says of the fetch. Raises the error of a fetch that failed."""
        entry.progress = HostProgress.of_transfer(view)
        if view.complete:
            self._ready(entry)
        elif view.error:
            error = view.error
            raise restored(error.code, f"{entry.name}: {error.message}", hint=error.hint)

    def heard(self, entry: HostEntry, node: RolloutNode) -> None:
        """Take what the host has reported to the coordinator. Raises the error of a fetch that failed."""
        entry.progress = HostProgress.of_node(node)
        if node.ready("files"):
            self._ready(entry)
        elif node.phase == "failed" and node.failure:
            failure = node.failure
            raise restored(failure.code, f"{entry.name}: {failure.message}", hint=failure.hint)

    def _ready(self, entry: HostEntry) -> None:
        entry.stage = "ready"
        entry.seconds = time.monotonic() - self._began


async def _known(daemon: DaemonControl, entry: HostEntry) -> NodeView:
    node = await daemon.node()
    entry.peer, entry.cache_dir = node.peer_address, node.cache_dir
    return node


def _clock(look: HostLook) -> tuple[DoctorCheck, ...]:
    """The check of the host's clock against this machine's: the host may know no coordinator yet."""
    if abs(look.clock) < SKEWED:
        return ()
    found = f"{abs(look.clock):.0f} s {'ahead of' if look.clock > 0 else 'behind'} this machine"
    return (DoctorCheck("clock", "warning", found, "synchronise the clocks (NTP): times in reports are wrong"),)


@dataclass(frozen=True, slots=True)
class _Doctored:
    checks: tuple[DoctorCheck, ...]
    missing: int
    link: float | None
    mirrors: LinkRate | None
    apart: str


def _doctored(name: str, done: Completed) -> _Doctored:
    """What `p2pmodel doctor --json` printed; a host is not trusted to print anything sensible."""
    try:
        plain: Any = parse_json(done.out)
        checks = tuple(_clean(check) for check in _CHECKS.validate_python(plain["checks"]))
        need, node = plain["snapshot"] or {"missing": 0, "staged": 0}, plain["node"]
        missing = max(0, int(need["missing"]) - int(need["staged"]))
        link = None if node["link"] is None else float(node["link"])
        return _Doctored(checks, missing, link, _mirror_rate(node["mirrors"]), printable(str(node["apart"]), 200))
    except (ValueError, KeyError, TypeError, ValidationError):
        raise Unavailable(f"{name}: p2pmodel doctor fails there: {printable(done.reason, 300)}") from None


def _mirror_rate(mirrors: Sequence[Mapping[str, Any]]) -> LinkRate | None:
    """The rate of the mirrors together: of those that were measured, else of all if each has a limit."""
    usable = [each for each in mirrors if not each["error"]]
    measured = [each for each in usable if each["rate"] is not None]
    return together(
        narrowest(
            None if each["rate"] is None else LinkRate(int(each["rate"]), "measured"),
            None if each.get("limit") is None else LinkRate(int(each["limit"]), "declared"),
        )
        for each in measured or usable
    )


def _clean(check: DoctorCheck) -> DoctorCheck:
    return DoctorCheck(printable(check.name), check.outcome, printable(check.found, 500), printable(check.hint, 300))


def _load_times(done: Completed) -> LoadTimes:
    """What `p2pmodel fetch --load --json` printed; a host is not trusted to print anything sensible."""
    try:
        found: Any = parse_json(done.out)["loading"]
        first = found["answer"]["first_token_seconds"] if "answer" in found else None
        return LoadTimes(float(found["load_seconds"]), None if first is None else float(first))
    except (ValueError, KeyError, TypeError):
        return LoadTimes(0.0)


def _log_of(entry: HostEntry) -> str:
    return f"{entry.look.state_dir if entry.look else ''}/services/{SERVE}/log"


def last_line(log: str) -> str:
    """The last line of a log that says something, as a person reads it."""
    lines = [line for line in log.strip().splitlines() if line.strip()]
    if not lines:
        return "it printed nothing"
    try:
        found: Any = parse_json(lines[-1].encode())
        return printable(str(found["message"]), 300)
    except (ValueError, KeyError, TypeError):
        return printable(lines[-1], 300)
