"""The launcher inside a Slurm allocation: every command is a step of the job on one node, by srun.

A service is a step that stays: with proctrack/cgroup Slurm ends what a step leaves behind when it returns. Its srun
outlives the launcher, and ends with the job at the latest. The daemon's control API is reached through a step that
copies between its socket and ours.
"""

import asyncio
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from p2pmodel.client import Client, NoDaemon
from p2pmodel.cluster import scripted_host as scripts
from p2pmodel.cluster.launcher import COMMAND_SECONDS, Completed, DaemonControl, HostUnreachable, ServiceSpec
from p2pmodel.cluster.scripted_host import ScriptedHost
from p2pmodel.core.content.names import printable
from p2pmodel.errors import Conflict, InvalidInput, LocalResource, Unavailable

IMMEDIATE = 30
"""Seconds in which Slurm must start a step."""
START_SECONDS = 30.0
CHUNK = 1 << 16
_EXITED = re.compile(r"task \d+: (Exited with exit code|Killed|Terminated|Aborted|Segmentation)")
_OWN = re.compile(r"(srun|slurmstepd)[^ :]*: ")
"""The begin of a line of Slurm itself, on the stderr that it shares with the command."""
_ADDRESS = re.compile(r"\bNodeAddr=(\S+)")

_RELAY = """
import os, socket, sys, threading
s = socket.socket(socket.AF_UNIX)
try: s.connect(sys.argv[1])
except OSError: sys.exit(3)
os.write(1, b"+")
def up():
    while data := os.read(0, 65536): s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := s.recv(65536):
    while data: data = data[os.write(1, data):]
os._exit(0)
"""
"""Copies between stdin and stdout and a unix socket, after a `+` once it is connected."""


class SlurmLauncher:
    """Reaches the nodes of the job `job`. `state_dir`: as for ScriptedHost; it is a folder of the node itself, since
    homes of clusters are mostly shared."""

    def __init__(self, job: str, *, state_dir: str) -> None:
        self._job = job
        self._state_dir = state_dir
        self._steps: dict[tuple[str, str], subprocess.Popen[bytes]] = {}

    @asynccontextmanager
    async def connect(self, host: str) -> AsyncIterator["SlurmHost"]:
        """See Launcher. Nothing is connected: each command is a step."""
        yield SlurmHost(host, self._job, self._state_dir, await _address(host), self._steps)


def allocation(environment: Mapping[str, str]) -> tuple[str, str]:
    """The job and the node set of the allocation in `environment`. Raises InvalidInput outside of one."""
    job = environment.get("SLURM_JOB_ID", "")
    nodes = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST", "")
    if not job or not nodes:
        raise InvalidInput("--hosts slurm works inside an allocation", hint="run it in a batch script, or after salloc")
    return job, nodes


class SlurmHost(ScriptedHost):
    """A node of the job. `steps`: the sruns of services that this process has started."""

    def __init__(
        self,
        name: str,
        job: str,
        state_dir: str,
        address: str,
        steps: dict[tuple[str, str], subprocess.Popen[bytes]],
    ) -> None:
        super().__init__(name, self.run, state_dir=state_dir, address=address)
        self._steps = steps
        self._srun = (
            *("srun", f"--jobid={job}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={name}", "--mem=0"),
            *("--unbuffered", f"--immediate={IMMEDIATE}", "--quit-on-interrupt"),
        )

    async def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = COMMAND_SECONDS) -> Completed:
        """See RemoteHost."""
        process = await self._step(command)
        try:
            async with asyncio.timeout(timeout):
                out, err = await process.communicate(stdin)
        except TimeoutError:
            what = printable(command[0], 60)
            raise Unavailable(
                f"{self.name}: '{what}' has not ended within {timeout:g} s",
                hint="log in there, and see what it waits for",
            ) from None
        finally:
            await _ended(process)
        return self._completed(process.returncode or 0, out, err)

    def _completed(self, code: int, out: bytes, err: bytes) -> Completed:
        lines = err.decode(errors="replace").splitlines()
        own = [line for line in lines if _OWN.match(line)]
        failed = [line for line in own if "error: " in line and not _EXITED.search(line)]
        missing = [line for line in failed if "execve" in line or "No such file" in line]
        if missing:
            return Completed(127, out, f"{printable(missing[0])}: not found\n".encode())
        if failed and code:
            reason = printable(failed[0].partition("error: ")[2], 200)
            raise HostUnreachable(f"{self.name}: Slurm runs no step there: {reason}", hint="see 'scontrol show node'")
        rest = [line for line in lines if line not in own]
        return Completed(code, out, "\n".join(rest).encode())

    async def start(self, service: ServiceSpec) -> bool:
        """See RemoteHost. The step is detached from this process, so that it outlives it."""
        before = await self.state(service)
        if before.running:
            if not before.same:
                raise Conflict(f"{self.name} runs the {service.name} of another roll-out", hint="end it first: --down")
            return False
        script = scripts.foreground(await self._folder(), service)
        # Not of asyncio, which ends its processes with their last reference.
        process = await asyncio.to_thread(_detached, [*self._srun, "sh", "-c", script])
        self._steps[self.name, service.name] = process
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not (found := await self.state(service)).running:
            if process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                last = printable((found.log.strip().splitlines() or [f"exit code {process.returncode}"])[-1], 300)
                raise LocalResource(f"{self.name} cannot start the {service.name}: {last}", hint="see its log there")
        return True

    async def stop(self, name: str) -> bool:
        """See RemoteHost."""
        stopped = await super().stop(name)
        step = self._steps.pop((self.name, name), None)
        if step is not None:
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(step.wait, START_SECONDS)
        return stopped

    @asynccontextmanager
    async def control(self, socket: str) -> AsyncIterator[DaemonControl]:
        """See RemoteHost."""
        first = await self._relay(socket)
        ready: list[asyncio.subprocess.Process] = [first]
        relays = {first}

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                process = ready.pop() if ready else await self._relay(socket)
            except (NoDaemon, HostUnreachable, Unavailable):
                writer.close()
                return
            relays.add(process)
            await _copied(process, reader, writer)

        with tempfile.TemporaryDirectory(prefix="p2pmodel-") as folder:
            path = Path(folder) / "control"
            server = await asyncio.start_unix_server(connected, path)
            try:
                async with Client(path) as client:
                    yield client
            finally:
                server.close()
                for process in relays:
                    await _ended(process)

    async def _relay(self, socket: str) -> asyncio.subprocess.Process:
        """A step that is connected with the socket. Raises NoDaemon if nothing listens there."""
        process = await self._step(["python3", "-IS", "-c", _RELAY, socket])
        assert process.stdout is not None
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                greeting = await process.stdout.read(1)
                if greeting == b"+":
                    return process
                _, err = await process.communicate()
        except TimeoutError:
            await _ended(process)
            raise HostUnreachable(f"{self.name}: Slurm starts no step there", hint="see 'scontrol show node'") from None
        self._completed(process.returncode or 0, b"", err)
        raise NoDaemon(f"{self.name}: no daemon is running (looked for {socket})", hint="see its log there")

    async def _step(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *(*self._srun, *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError:
            raise LocalResource(
                "srun is not installed here", hint="run this command on a machine with Slurm's client"
            ) from None


def _detached(command: Sequence[str]) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)  # noqa: S603


async def _copied(
    process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Copy between a connection and a relay until one of them ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def up() -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                stdin.write(data)
                await stdin.drain()
        stdin.close()

    sending = asyncio.create_task(up())
    with suppress(ConnectionError):
        while data := await stdout.read(CHUNK):
            writer.write(data)
            await writer.drain()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End the srun and its step, if it runs still."""
    if process.returncode is None:
        # Not `terminate`, which may reap the process where asyncio's watcher is about to.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(10.0):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _address(host: str) -> str:
    """The address of a node as Slurm has it; its name if that cannot be found out."""
    try:
        process = await asyncio.create_subprocess_exec(
            *("scontrol", "--oneliner", "show", "node", host),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
        found = _ADDRESS.search(out.decode(errors="replace"))
        listed = await asyncio.get_running_loop().getaddrinfo(found[1] if found else host, None)
    except OSError:
        return host
    return str(listed[0][4][0])


def node_state_dir() -> str:
    """The default state folder on nodes: local to each, where home directories are shared."""
    return f"/tmp/p2pmodel-{os.getuid()}"  # noqa: S108 - scripts check that it is the user's own
