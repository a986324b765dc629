"""A connected host on which everything is done by shell scripts; a launcher adds how a command gets there."""

import shlex
import time
from collections.abc import Sequence
from typing import Protocol

from p2pmodel.cluster import service_scripts as scripts
from p2pmodel.cluster.launcher import COMMAND_SECONDS, Completed, HostLook, HostUnreachable, ServiceSpec, ServiceState
from p2pmodel.core.content.names import printable
from p2pmodel.errors import Conflict, LocalResource

LOOK_SECONDS = 30.0
STOP_SECONDS = scripts.STOP_TENTHS / 10 + COMMAND_SECONDS


class _Runs(Protocol):
    async def __call__(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = ...) -> Completed: ...


class ScriptedHost:
    """The methods of a RemoteHost that scripts do, over `run`. `state_dir`: where its services are recorded; None: the
    default of the host's user. `address`: as in HostLook."""

    def __init__(self, name: str, run: _Runs, *, state_dir: str | None = None, address: str = "") -> None:
        self.name = name
        self._run = run
        self._state_dir = state_dir
        self._address = address

    async def look(self) -> HostLook:
        """See RemoteHost."""
        began = time.time()
        script = f"P2PMODEL_STATE_DIR={self._quoted()}; {scripts.LOOK}" if self._state_dir else scripts.LOOK
        done = await self._run(["sh", "-c", script], timeout=LOOK_SECONDS)
        middle = (began + time.time()) / 2
        lines = [line.partition(" ") for line in done.out.decode(errors="replace").splitlines()]
        facts = {key: printable(value.strip(), 4096) for key, _, value in lines}
        if not facts.get("socket") or not facts.get("time"):
            raise HostUnreachable(f"{self.name} runs no shell: {done.reason}", hint="log in there once and look")
        self._state_dir = facts["state"]
        command = (facts["p2pmodel"],) if facts.get("p2pmodel") else ()
        return HostLook(
            state_dir=facts["state"],
            socket=facts["socket"],
            p2pmodel=command,
            python=facts.get("python", ""),
            clock=_seconds(facts["time"], middle) - middle,
            machine=facts.get("machine", ""),
            address=self._address,
            services=tuple(printable(value.strip(), 60) for key, _, value in lines if key == "service"),
        )

    async def write(self, path: str, data: bytes) -> None:
        """See RemoteHost."""
        done = await self._run(["sh", "-c", scripts.WRITE, "sh", path], stdin=data)
        if done.code:
            raise LocalResource(f"{self.name} cannot write {path}: {done.reason}", hint="check its disk and its mode")

    async def start(self, service: ServiceSpec) -> bool:
        """See RemoteHost."""
        done = await self._run(["sh", "-c", scripts.start(await self._folder(), service)])
        if done.code == scripts.OTHER:
            raise Conflict(
                f"{self.name} runs the {service.name} of another roll-out", hint="end it first with the option --down"
            )
        if done.code not in (scripts.STARTED, scripts.ABSENT):
            raise LocalResource(f"{self.name} cannot start the {service.name}: {done.reason}", hint="see its log there")
        return done.code == scripts.STARTED

    async def state(self, service: ServiceSpec | str) -> ServiceState:
        """See RemoteHost."""
        done = await self._run(["sh", "-c", scripts.state(await self._folder(), service)])
        log = done.out.decode(errors="replace")
        running = done.code in (0, scripts.OTHER)
        return ServiceState(
            running, known=running or done.code == scripts.ENDED, same=done.code != scripts.OTHER, log=log
        )

    async def stop(self, name: str) -> bool:
        """See RemoteHost."""
        done = await self._run(["sh", "-c", scripts.stop(await self._folder(), name)], timeout=STOP_SECONDS)
        if done.code not in (0, scripts.ABSENT):
            raise LocalResource(f"{self.name} cannot stop the {name}: {done.reason}", hint="see its log there")
        return done.code == 0

    async def _folder(self) -> str:
        if self._state_dir is None:
            await self.look()
        assert self._state_dir is not None
        return self._state_dir

    def _quoted(self) -> str:
        return shlex.quote(self._state_dir or "")


def _seconds(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:  # a `date` without nanoseconds prints an N
        try:
            return float(text.partition(".")[0])
        except ValueError:
            return otherwise
