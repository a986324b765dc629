"""The launcher over ssh, by asyncssh: with the user's configuration, agent, known hosts and jump hosts.

Host keys are always checked: asyncssh knows no other way but `known_hosts=None`, which is refused here even where the
configuration asks for it (`UserKnownHostsFile none`). There is no prompt: keys come from the agent or from files
without a passphrase. The control API is reached through the connection, at the daemon's unix socket.
"""

import asyncio
import os
import shlex
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh

from p2pmodel.client import Client, NoDaemon
from p2pmodel.cluster.launcher import COMMAND_SECONDS, Completed, DaemonControl, HostRefused, HostUnreachable
from p2pmodel.cluster.scripted_host import ScriptedHost
from p2pmodel.core.backoff import Backoff
from p2pmodel.core.content.names import printable
from p2pmodel.core.files.home import expanded
from p2pmodel.errors import InvalidInput, P2PModelError, Unavailable

CONNECT_SECONDS = 10.0
ALIVE_SECONDS, ALIVE_COUNT = 10.0, 3
"""Seconds between two keep-alive messages, and the number without an answer that ends the connection."""
ATTEMPTS = 4
"""Attempts at a connection that the server resets: an sshd, above all a jump host, refuses more than 10 that are not
authenticated yet (MaxStartups)."""
_RESET = (asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError)


class SshLauncher:
    """Connects by ssh. `config`: a file instead of the user's own; `state_dir`: as for ScriptedHost."""

    def __init__(self, config: Path | None = None, *, state_dir: str | None = None) -> None:
        self._config = config
        self._state_dir = state_dir

    @asynccontextmanager
    async def connect(self, host: str) -> AsyncIterator["SshHost"]:
        """See Launcher."""
        connection = await self._connected(host)
        try:
            yield SshHost(host, connection, self._state_dir)
        finally:
            connection.abort()
            await connection.wait_closed()

    async def _connected(self, host: str) -> asyncssh.SSHClientConnection:
        backoff = Backoff(0.5, 4.0)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._attempt(host)
            except _RESET as error:
                if attempt == ATTEMPTS:
                    raise HostUnreachable(
                        f"{host}: the ssh connection was reset: {error}",
                        hint="its sshd, or the jump host's, may be busy (MaxStartups): use a smaller --fanout",
                    ) from None
            await asyncio.sleep(backoff.failed())
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, host: str) -> asyncssh.SSHClientConnection:
        judge = _HostKeyJudge()
        # Jump hosts are connected with this one too, not with the options.
        config: dict[str, Any] = {"config": str(self._config)} if self._config else {}
        try:
            options = await asyncssh.SSHClientConnectionOptions.construct(
                host=host,
                **config,
                client_factory=lambda: judge,
                connect_timeout=CONNECT_SECONDS,
                login_timeout=CONNECT_SECONDS,
                keepalive_interval=ALIVE_SECONDS,
                keepalive_count_max=ALIVE_COUNT,
            )
            if options.known_hosts is None:
                raise HostRefused(
                    f"the ssh configuration turns the check of host keys off for {host} (UserKnownHostsFile none)",
                    hint="p2pmodel always checks them: remove that line",
                )
            judge.known_hosts, judge.alias = options.known_hosts, options.host_key_alias or ""
            async with asyncio.timeout(3 * CONNECT_SECONDS):  # jump hosts have the bound each
                return await asyncssh.connect(host, options=options, **config)
        except (asyncssh.Error, OSError, ValueError, RecursionError) as error:
            if isinstance(error, _RESET):
                raise
            raise _explained(host, error, judge) from None


class SshHost(ScriptedHost):
    """A host with an open ssh connection."""

    def __init__(self, name: str, connection: asyncssh.SSHClientConnection, state_dir: str | None) -> None:
        peer = connection.get_extra_info("peername")
        super().__init__(name, self.run, state_dir=state_dir, address=peer[0] if peer else "")
        self._connection = connection

    async def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = COMMAND_SECONDS) -> Completed:
        """See RemoteHost."""
        try:
            async with asyncio.timeout(timeout):
                process = await self._connection.create_process(shlex.join(command), encoding=None)
                if stdin:
                    with suppress(BrokenPipeError):  # it has ended already, without reading: its exit code says why
                        process.stdin.write(stdin)
                        process.stdin.write_eof()
                done = await process.wait()
        except TimeoutError:
            what = printable(command[0], 60)
            raise Unavailable(
                f"{self.name}: '{what}' has not ended within {timeout:g} s",
                hint="log in there, and see what it waits for",
            ) from None
        except (asyncssh.Error, OSError) as error:
            raise HostUnreachable(f"{self.name}: the ssh connection broke: {error}", hint=_LATER) from None
        if done.exit_status is None:
            raise HostUnreachable(f"{self.name}: the ssh connection broke", hint=_LATER)
        out, err = done.stdout, done.stderr
        assert isinstance(out, bytes | bytearray)
        assert isinstance(err, bytes | bytearray)
        return Completed(done.exit_status, bytes(out), bytes(err))

    @asynccontextmanager
    async def control(self, socket: str) -> AsyncIterator[DaemonControl]:
        """See RemoteHost."""
        await self._check_listens(socket)
        with tempfile.TemporaryDirectory(prefix="p2pmodel-") as folder:
            path = Path(folder) / "control"
            listener = await self._connection.forward_local_path(str(path), socket)
            try:
                async with Client(path) as client:
                    yield client
            finally:
                listener.close()
                await listener.wait_closed()

    async def _check_listens(self, path: str) -> None:
        """Raise NoDaemon unless a program listens at the socket: a forwarded one accepts, and closes at once."""
        try:
            _, writer = await self._connection.open_unix_connection(path)
        except asyncssh.ChannelOpenError as error:
            if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                raise HostRefused(
                    f"{self.name}: its sshd forwards no unix sockets",
                    hint="set AllowStreamLocalForwarding to yes or local in its sshd_config",
                ) from None
            raise NoDaemon(f"{self.name}: no daemon is running (looked for {path})", hint="see its log there") from None
        except (asyncssh.Error, OSError) as error:
            raise HostUnreachable(f"{self.name}: the ssh connection broke: {error}", hint=_LATER) from None
        writer.close()


_LATER = "the same command goes on once it answers"
_TRUST = "compare the key with the host's own, then add it to known_hosts (ssh-keyscan, or 'ssh {host}' once)"
_CHANGED = "if the host was set up anew, remove the old key (ssh-keygen -R {host}); else do not use it"


class _HostKeyJudge(asyncssh.SSHClient):
    """Accepts no key, and tells afterwards a wrong key from an unknown one."""

    def __init__(self) -> None:
        self.known_hosts: object = None
        self.alias: str = ""
        self.wrong = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        known = self.known_hosts or _default_known_hosts()
        name = self.alias or host
        found = asyncssh.match_known_hosts(known, name, addr, None if port == _SSH_PORT else port)  # type: ignore[arg-type]
        self.wrong = bool(found[0] or found[2])
        return False


_SSH_PORT = 22


def _default_known_hosts() -> str | bytes:
    path = expanded(Path("~/.ssh/known_hosts"))
    return str(path) if path.is_file() else b""


def _explained(host: str, error: BaseException, judge: _HostKeyJudge) -> P2PModelError:
    """The error of a failed connection, in words."""
    text = printable(" ".join(str(error).split()) or type(error).__name__, 200)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        if judge.wrong or "revoked" in text.lower():
            what = f"{host}: its ssh host key is not the one in known_hosts"
            return HostRefused(what, hint=_CHANGED.format(host=host))
        return HostRefused(f"{host}: its ssh host key is unknown", hint=_TRUST.format(host=host))
    if isinstance(error, asyncssh.PermissionDenied):
        hint = "load a key that the host admits into the agent (ssh-add), or name it as IdentityFile"
        return HostRefused(f"{host}: the host admits no ssh key of this user", hint=hint)
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return HostUnreachable(f"{host}: no common ssh algorithm: {text}", hint="update the sshd of the host")
    return _of_configuration(host, error, text) or HostUnreachable(
        f"{host}: ssh cannot connect: {_of_network(error) or text}", hint=f"check that it is up ('ssh {host}')"
    )


def _of_configuration(host: str, error: BaseException, text: str) -> P2PModelError | None:
    """The error of a configuration file that asyncssh cannot follow, where ssh itself may."""
    if isinstance(error, ValueError):  # also a key file that cannot be read
        return InvalidInput(f"the ssh configuration cannot be read: {text}", hint="correct that line")
    if isinstance(error, RecursionError):
        what = f"the ssh configuration makes {host} its own jump host"
        return InvalidInput(what, hint="exclude it: 'Host * !JUMPHOST'")
    if isinstance(error, FileNotFoundError):
        file = printable(str(error.filename or text))
        what = f"a file that the ssh configuration names does not exist: {file}"
        return InvalidInput(what, hint="correct or remove that line")
    return None


def _of_network(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    return os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else ""
