"""The launcher: what a roll-out needs from whatever reaches the hosts of a cluster, and the form of a host's name.

A launcher connects to a host by name. On a connected host commands run, private files are written, services start and
stop, and the control API of its daemon is called. Services outlive the connection. No method opens a port, and no
secret stands in the arguments of a command: secrets are the content of files.

The libraries of launchers are optional: the extra `cluster`.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from p2pmodel.core.content.names import printable
from p2pmodel.core.progress.views import NodeView, TransferView
from p2pmodel.errors import InvalidInput, P2PModelError, Unavailable

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})")


def check_host(name: str) -> str:
    """Return `name` if it is the name of a host: no blanks, no user, nothing that a command takes for an option."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"'{printable(name)}' is not the name of a host",
            hint="put its user and port into the ssh configuration",
        )
    return name


COMMAND_SECONDS = 60.0
"""Default bound on a command."""


class HostUnreachable(Unavailable):
    """A host of a cluster could not be reached, or the connection to it broke."""

    code = "host_unreachable"


class HostRefused(P2PModelError):
    """A host was reached, and is not used: its key is wrong or unknown, or it admits no key of the user."""

    code = "host_refused"
    exit_code = 4


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended."""

    code: int
    out: bytes
    err: bytes

    @property
    def reason(self) -> str:
        """The last line that it printed on stderr, else its exit code."""
        lines = self.err.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class HostLook:
    """A host as a shell finds it. `p2pmodel`: the command, empty where there is none; `python`: version of python3, as
    in `3.11`; `clock`: seconds by which its clock is ahead of the launcher's, at most half of the time of the request
    wrong; `address`: its address as the launcher sees it, where that is known; `services`: names of those that run."""

    state_dir: str
    socket: str
    p2pmodel: tuple[str, ...]
    python: str
    clock: float
    machine: str = ""
    address: str = ""
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A program that keeps running on a host: its command, and environment variables without secrets."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """Whether a service runs. `known`: a launcher has started it, and none has stopped it since; `same`: with the
    command and environment that were asked for. `log`: the end of what it has printed."""

    running: bool
    known: bool = False
    same: bool = True
    log: str = ""


class DaemonControl(Protocol):
    """The part of the control API of a daemon that a roll-out uses."""

    async def node(self) -> NodeView:
        """The node itself. Raises NoDaemon where none runs."""

    async def start(self, target: str | bytes) -> TransferView:
        """Start a transfer, or return the one that is there."""

    async def transfers(self) -> tuple[TransferView, ...]:
        """All transfers."""

    async def cancel(self, ident: str) -> TransferView:
        """Remove a transfer, but not its files."""


class RemoteHost(Protocol):
    """A connected host. Every method raises HostUnreachable when the connection breaks."""

    @property
    def name(self) -> str:
        """Its name in the node set."""

    async def look(self) -> HostLook:
        """Examine the host."""

    async def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = COMMAND_SECONDS) -> Completed:
        """Run a command to its end. A command that is not there ends with 127. Raises Unavailable after `timeout`."""

    async def write(self, path: str, data: bytes) -> None:
        """Write a file that only its user can read, whole or not at all; makes its folder."""

    async def start(self, service: ServiceSpec) -> bool:
        """Start `service`; whether it was started now. One that runs with the same command is left alone.

        Raises Conflict for one that runs with another command.
        """

    async def state(self, service: ServiceSpec | str) -> ServiceState:
        """The state of a service, or of the one of that name."""

    async def stop(self, name: str) -> bool:
        """End the service, first by SIGTERM; whether it ran."""

    def control(self, socket: str) -> AbstractAsyncContextManager[DaemonControl]:
        """The control API at a unix socket of the host."""


class Launcher(Protocol):
    """Reaches the hosts of a cluster."""

    def connect(self, host: str) -> AbstractAsyncContextManager[RemoteHost]:
        """A connection to `host`. Raises HostUnreachable or HostRefused, both with the reason and what to do."""
