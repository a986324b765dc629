"""aiohttp applications on a TCP address or unix socket: exposure check, errors of binding, bounded shutdown."""

import errno
import grp
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

from aiohttp import web

from p2pmodel.core.content.names import printable
from p2pmodel.core.files.private_files import FILE_MODE, make_folders
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.listeners import listening
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.http.admission.access import RequestGuard
from p2pmodel.http.admission.protection import protect
from p2pmodel.http.connections import ConnectionLimits, LimitedServer
from p2pmodel.http.runner import ListeningRunner
from p2pmodel.os_errors import translate

MAX_BODY = 4 << 20
"""Bound on a request body in bytes, for `web.Application(client_max_size=MAX_BODY)`."""

_GROUP_MODE = 0o660

MAX_HEADER = 8190
"""Bound on the request line and on a header field in bytes."""


def check_exposure(address: ListenAddress, *, protected: bool, insecure_public: bool | None = False) -> None:
    """Raise InvalidInput if other machines could reach `address` without a token and the user has not allowed that.

    `protected`: the application requires a token; `insecure_public`: the user has given --insecure-public (None: the
    verb has no such option).
    """
    if not (address.loopback or protected or insecure_public):
        raise InvalidInput(
            f"{address} is reachable from other machines, and no token is set",
            hint="set a token, listen on 127.0.0.1, or give --insecure-public"
            if insecure_public is not None
            else "set a token, or listen on 127.0.0.1",
        )


EVERY_ADDRESS = "::"
"""The wildcard address of IPv6, which stands for that of IPv4, too, as for other programs on Linux."""

NO_LIMITS = ConnectionLimits()
"""No connection limits; only the timeouts apply."""

ONLY_THIS_MACHINE = RequestGuard()
"""No token, no page that other sites may link to, and no name but the machine's own."""


def _ignore(_note: str) -> None:
    pass


@asynccontextmanager
async def serving(
    app: web.Application,
    host: str,
    port: int,
    *,
    guard: RequestGuard = ONLY_THIS_MACHINE,
    grace: float = 2.0,
    limits: ConnectionLimits = NO_LIMITS,
    tls: ssl.SSLContext | None = None,
    end_with_client: bool = False,
    note: Callable[[str], None] = _ignore,
) -> AsyncIterator[str]:
    """Serve `app` while the context lasts; yields the base URL of the bound address, as `http://127.0.0.1:8090`.

    `guard` is applied to every request, before the application's own middlewares. `end_with_client`: the handler of a
    request is cancelled when its client is gone. `note` receives log lines.
    At the end running requests get `grace` seconds to finish; then they are cancelled and their connections closed.
    The shutdown takes at most about three times `grace`. Raises LocalResource if the address cannot be bound.
    """
    protect(app, guard.at(ListenAddress(host, port), tls=tls is not None), note)
    runner = _Runner(app, grace, limits, note, tls, end_with_client=end_with_client)
    await runner.setup()
    try:
        try:
            await runner.listen(host=host, port=port)
            if host == EVERY_ADDRESS:  # asyncio binds it for IPv6 alone
                await runner.listen(host="0.0.0.0", port=runner.addresses[0][1])  # noqa: S104
        except (OSError, OverflowError) as error:
            raise _bind_error(error, host, port) from error
        bound = runner.addresses[0]
        with listening(bound[0], bound[1]):
            yield f"{'https' if tls else 'http'}://{ListenAddress(bound[0], bound[1])}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_unix(
    app: web.Application,
    path: Path,
    *,
    grace: float = 2.0,
    limits: ConnectionLimits = NO_LIMITS,
    group: str | None = None,
    note: Callable[[str], None] = _ignore,
) -> AsyncIterator[None]:
    """As `serving`, on the unix socket `path` of mode 0600, for this process's user and root. Creates its directory.

    With `group` its members may use it, too: mode 0660. A stale socket is replaced. Raises InvalidInput for an unknown
    group, LocalResource if a process listens on it, or it cannot be created.
    """
    admitted = _group_id(group) if group is not None else None
    protect(app, None, note, open_to_group=admitted is not None)
    runner = _Runner(app, grace, limits, note)
    await runner.setup()
    try:
        with closing(_unix_listener(path, admitted)) as listener:
            await runner.listen(sock=listener.dup())
        try:
            yield
        finally:
            _unlink(path)
    finally:
        await runner.cleanup()


def check_not_running(path: Path) -> None:
    """Raise LocalResource if a process listens on the unix socket `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.settimeout(1.0)
            probe.connect(str(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return
            raise _socket_error(error, path) from error
        raise LocalResource(
            f"a daemon is running already at {path}", hint="stop it first, or set another daemon.socket"
        )


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _group_id(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidInput(f"setting daemon.socket_group: there is no group {printable(name)}") from None


def _unix_listener(path: Path, group: int | None) -> socket.socket:
    check_not_running(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        make_folders(path.parent)
        if path.is_socket():
            path.unlink()
        # Before it is bound: the file in the folder is made with this mode.
        os.fchmod(listener.fileno(), FILE_MODE)
        listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(_GROUP_MODE)
    except OSError as error:
        listener.close()
        raise _socket_error(error, path) from error
    return listener


def _socket_error(error: OSError, path: Path) -> Exception:
    if "AF_UNIX path too long" in str(error):
        return LocalResource(f"the path of the socket is too long: {path}", hint="set a shorter daemon.socket")
    if error.errno in (errno.EADDRINUSE, errno.ENOTSOCK):
        return LocalResource(
            f"{path} exists and is not a socket of a daemon", hint="remove it, or set another daemon.socket"
        )
    error.filename = str(path)
    return translate(error)


class _Runner(ListeningRunner):
    """Runs an application on a LimitedServer."""

    def __init__(
        self,
        app: web.Application,
        grace: float,
        limits: ConnectionLimits,
        note: Callable[[str], None],
        tls: ssl.SSLContext | None = None,
        *,
        end_with_client: bool = False,
    ) -> None:
        super().__init__(app, shutdown_timeout=grace)
        self._options = {
            "handler_cancellation": end_with_client,
            "access_log": None,
            "keepalive_timeout": 75.0,
            "lingering_time": min(grace, 10.0),
            "max_line_size": MAX_HEADER,
            "max_field_size": MAX_HEADER,
        }
        self._limits = limits
        self._tls = tls
        self._note = note

    async def _make_server(self) -> web.Server:
        return LimitedServer(await super()._make_server(), self._limits, self._tls, self._options, self._note)


def _bind_error(error: OSError | OverflowError, host: str, port: int) -> Exception:
    where = str(ListenAddress(host, port))
    if isinstance(error, socket.gaierror):
        return LocalResource(f"cannot listen on {where}: no such host", hint="give an address of this machine")
    if isinstance(error, OverflowError):
        return InvalidInput(f"cannot listen on {where}: ports are 0 to 65535")
    if error.errno == errno.EADDRINUSE:
        return LocalResource(
            f"cannot listen on {where}: the port is in use", hint="stop the other program, or choose port 0 for any"
        )
    if error.errno in (errno.EADDRNOTAVAIL, None):  # None: asyncio, from Python 3.13 on
        return LocalResource(
            f"cannot listen on {where}: this machine does not have that address", hint="see 'ip address'"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return LocalResource(f"cannot listen on {where}: not permitted", hint="choose a port above 1023")
    return translate(error)
