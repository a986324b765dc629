"""The twin of the launchers in memory: hosts with services, files and a daemon that are values of this process.

A simulated daemon completes a transfer at the first look after `rounds` of them. Hosts can be down, refuse, and have
programs of their own (`programs`): what a command prints, by its first word.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from p2pmodel import __version__
from p2pmodel.client import NoDaemon
from p2pmodel.cluster.launcher import (
    COMMAND_SECONDS,
    Completed,
    DaemonControl,
    HostLook,
    HostUnreachable,
    ServiceSpec,
    ServiceState,
)
from p2pmodel.core.content.names import DEFAULT_REVISION, Reference, transfer_id
from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.progress.views import EngineState, NodeView, TransferView
from p2pmodel.errors import Conflict, NotFound, P2PModelError, Unavailable

Program = Callable[[Sequence[str], bytes], Completed]
STATE_DIR = "/state"
SOCKET = f"{STATE_DIR}/p2pmodel.sock"


def _cat(_command: Sequence[str], stdin: bytes) -> Completed:
    return Completed(0, stdin, b"")


def _echo(command: Sequence[str], _stdin: bytes) -> Completed:
    return Completed(0, " ".join(command[1:]).encode() + b"\n", b"")


def _false(_command: Sequence[str], _stdin: bytes) -> Completed:
    return Completed(1, b"", b"")


PROGRAMS: dict[str, Program] = {"cat": _cat, "echo": _echo, "false": _false}


@dataclass
class MemoryDaemon:
    """A daemon with transfers of `size` bytes that are complete after `rounds` looks at them. `engine`: how far an
    inference engine has come with them once they are complete."""

    rounds: int = 1
    size: int = 1000
    engine: EngineState = "none"
    _looks: dict[str, int] = field(default_factory=dict)
    _targets: dict[str, Reference] = field(default_factory=dict)

    async def node(self) -> NodeView:
        """See DaemonControl."""
        return NodeView(__version__, "/cache/hub", "10.0.0.1:6881", 1)

    async def start(self, target: str | bytes) -> TransferView:
        """See DaemonControl."""
        assert isinstance(target, str)
        ref = Reference.parse(target)
        ident = transfer_id(ref.repo, ref.revision)
        self._targets.setdefault(ident, ref)
        self._looks.setdefault(ident, 0)
        return self._view(ident)

    async def transfers(self) -> tuple[TransferView, ...]:
        """See DaemonControl."""
        for ident in self._looks:
            self._looks[ident] += 1
        return tuple(map(self._view, self._targets))

    async def cancel(self, ident: str) -> TransferView:
        """See DaemonControl."""
        if ident not in self._targets:
            raise NotFound("there is no such transfer")
        view = self._view(ident)
        del self._targets[ident], self._looks[ident]
        return view

    def _view(self, ident: str) -> TransferView:
        ref, looks = self._targets[ident], self._looks[ident]
        done = min(self.size, self.size * looks // max(1, self.rounds))
        complete = done == self.size
        return TransferView(
            id=ident,
            repo=str(ref.repo),
            commit=ref.revision,
            revisions=(DEFAULT_REVISION,),
            state="seeding" if complete else "active",
            complete=complete,
            priority=0,
            added=0.0,
            path="/cache/snapshot",
            size=self.size,
            engine_reached=self.engine if complete else "none",
            progress=Progress("seeding" if complete else "downloading", self.size, done, from_peers=done),
        )


@dataclass
class MemoryHost:
    """A simulated host. `failure`: raised by every method from now on; its daemon is there while the service runs."""

    name: str
    failure: P2PModelError | None = None
    programs: dict[str, Program] = field(default_factory=lambda: dict(PROGRAMS))
    daemon: MemoryDaemon = field(default_factory=MemoryDaemon)
    files: dict[str, bytes] = field(default_factory=dict)
    services: dict[str, ServiceSpec] = field(default_factory=dict)
    p2pmodel: tuple[str, ...] = ("p2pmodel",)
    clock: float = 0.0
    logs: dict[str, str] = field(default_factory=dict)
    """The output of each service."""
    _ended: set[str] = field(default_factory=set)

    def ended(self, name: str) -> None:
        """The service has ended by itself."""
        del self.services[name]
        self._ended.add(name)

    async def look(self) -> HostLook:
        """See RemoteHost."""
        await self._reached()
        services = tuple(self.services)
        return HostLook(STATE_DIR, SOCKET, self.p2pmodel, "3.11", self.clock, "x86_64", self.name, services)

    async def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = COMMAND_SECONDS) -> Completed:
        """See RemoteHost."""
        await self._reached()
        if command[0] == "sleep":
            if float(command[1]) > timeout:
                raise Unavailable(
                    f"{self.name}: 'sleep' has not ended within {timeout:g} s",
                    hint="log in there, and see what it waits for",
                )
            return Completed(0, b"", b"")
        program = self.programs.get(command[0])
        if program is None:
            return Completed(127, b"", f"{command[0]}: not found\n".encode())
        return program(command, stdin)

    async def write(self, path: str, data: bytes) -> None:
        """See RemoteHost."""
        await self._reached()
        self.files[path] = data

    async def start(self, service: ServiceSpec) -> bool:
        """See RemoteHost."""
        await self._reached()
        running = self.services.get(service.name)
        if running not in (None, service):
            raise Conflict(f"{self.name} runs the {service.name} of another roll-out")
        self.services[service.name] = service
        self._ended.discard(service.name)
        return running is None

    async def state(self, service: ServiceSpec | str) -> ServiceState:
        """See RemoteHost."""
        await self._reached()
        name = service if isinstance(service, str) else service.name
        running = self.services.get(name)
        known = running is not None or name in self._ended
        same = isinstance(service, str) or running == service
        return ServiceState(running is not None, known=known, same=same, log=self.logs.get(name, ""))

    async def stop(self, name: str) -> bool:
        """See RemoteHost."""
        await self._reached()
        self._ended.discard(name)
        return self.services.pop(name, None) is not None

    @asynccontextmanager
    async def control(self, socket: str) -> AsyncIterator[DaemonControl]:
        """See RemoteHost."""
        await self._reached()
        if "daemon" not in self.services:
            raise NoDaemon(f"no daemon is running (looked for {socket})", hint="start one with 'p2pmodel daemon'")
        yield self.daemon

    async def _reached(self) -> None:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure


class MemoryLauncher:
    """Reaches simulated hosts; counts how many are connected at a time, at `most`."""

    def __init__(self, *hosts: MemoryHost) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.connections: list[str] = []
        self.most = 0
        self._open = 0

    @asynccontextmanager
    async def connect(self, host: str) -> AsyncIterator[MemoryHost]:
        """See Launcher."""
        found = self.hosts.get(host)
        if found is None:
            raise HostUnreachable(f"{host}: there is no such host", hint="check its name")
        await asyncio.sleep(0)
        if found.failure is not None:
            raise found.failure
        self.connections.append(host)
        self._open += 1
        self.most = max(self.most, self._open)
        try:
            yield found
        finally:
            self._open -= 1
