"""LDAP servers that fail in a login: every wait has a bound, the error says what failed, and other work goes on."""

import asyncio
import faulthandler
import socket
import sys
from pathlib import Path

import pytest

from p2pmodel.config.sections.trust import LdapSettings
from p2pmodel.core.network.rights import RequestCredentials
from p2pmodel.errors import Unavailable
from tests.support.certificates import authority
from tests.support.eventually import PATIENCE
from tests.support.faulty_ldap import FaultyLdap, How, Step
from tests.support.opened_directories import opened

pytest.importorskip("ldap", reason="the extra ldap is not installed")

from p2pmodel.trust.access.ldap import LdapDirectory

ANNA = RequestCredentials("Bearer anna:pa55-of-anna")
SILENT, ENDED = "it does not answer", "it ends the connection|TLS fails|Connection reset"


def directory(url: str, ca_file: Path, timeout: float = 0.5) -> LdapDirectory:
    plain = {"url": url, "ca_file": ca_file, "user_dn": "uid={user},dc=example", "timeout": timeout}
    return opened(LdapDirectory(LdapSettings.model_validate(plain), ttl=60.0))


@pytest.mark.parametrize(
    ("starttls", "step", "how", "reason"),
    [
        (False, "accept", "silent", SILENT),
        (False, "accept", "ended", ENDED),
        (False, "bind", "silent", SILENT),
        (False, "bind", "ended", ENDED),
        (False, "search", "silent", SILENT),
        (False, "search", "ended", ENDED),
        (True, "accept", "silent", SILENT),
        (True, "accept", "ended", ENDED),
        (True, "starttls", "silent", SILENT),
        (True, "starttls", "ended", ENDED),
        (True, "starttls", "refused", "it refuses StartTLS"),
        (True, "handshake", "silent", SILENT),
        (True, "handshake", "ended", ENDED),
        (True, "bind", "silent", SILENT),
        (True, "search", "ended", ENDED),
    ],
)
async def test_a_server_that_fails_in_a_login_is_left_with_the_reason(
    tmp_path: Path, starttls: bool, step: Step, how: How, reason: str
) -> None:
    ca_file, context = authority(tmp_path)
    with FaultyLdap(context, starttls=starttls, fails_at=step, how=how) as server:
        # A login that hangs would hold this test for as long as the server is silent.
        with pytest.raises(Unavailable, match=rf"cannot be asked \(.*({reason})") as failed:
            await directory(server.url, ca_file, 0.5 if how == "silent" else PATIENCE).subject(ANNA)
        assert "pa55" not in str(failed.value)
        assert not [sent for sent in server.plain if b"pa55" in sent], "a password needs TLS"
        assert (server.passwords > 0) == (step in ("bind", "search"))


@pytest.mark.parametrize(
    ("starttls", "step"), [(False, "handshake"), (True, "handshake"), (True, "bind"), (False, "search")]
)
async def test_other_work_goes_on_while_a_server_is_silent(tmp_path: Path, starttls: bool, step: Step) -> None:
    """What blocks lets other threads run: a library that does not stops the process for as long."""
    # Such a library stops also the guard of pytest. This one is of C.
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True, file=sys.__stderr__)
    ca_file, context = authority(tmp_path)
    try:
        with FaultyLdap(context, starttls=starttls, fails_at=step, how="silent") as server:
            login = asyncio.create_task(directory(server.url, ca_file, PATIENCE).subject(ANNA))
            assert await asyncio.to_thread(server.reached.wait, PATIENCE)
            for _ in range(100):
                await asyncio.sleep(0)
            assert not login.done(), "the server is silent yet"
            server.release()
            with pytest.raises(Unavailable):
                await login
    finally:
        faulthandler.cancel_dump_traceback_later()


async def test_logins_that_waited_too_long_do_not_hold_those_after_them(tmp_path: Path) -> None:
    """The server was silent, and answers again: nothing is asked for clients that have left."""
    ca_file, context = authority(tmp_path)
    with FaultyLdap(context, starttls=False, fails_at="bind", how="silent") as server:
        settings = {"url": server.url, "ca_file": ca_file, "user_dn": "uid={user},dc=example", "timeout": 0.5}
        at = opened(LdapDirectory(LdapSettings.model_validate(settings | {"connections": 1}), ttl=60.0))
        logins = [at.subject(RequestCredentials(f"Bearer user{number}:pa55")) for number in range(30)]
        ended = await asyncio.gather(*logins, return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in ended)
        with pytest.raises(Unavailable, match=SILENT):
            await at.subject(ANNA)
        # 30 of them in turn would have taken 15 s.
        assert server.passwords < 15


async def test_a_server_that_is_not_there_is_named_with_the_reason(tmp_path: Path) -> None:
    ca_file, _ = authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for scheme in ("ldap", "ldaps"):
        with pytest.raises(Unavailable, match=rf"{scheme}://127.0.0.1:{port} cannot be asked \(Connection refused\)"):
            await directory(f"{scheme}://127.0.0.1:{port}", ca_file, PATIENCE).subject(ANNA)
    with pytest.raises(Unavailable, match=r"no-such-host\.test"):
        await directory("ldaps://no-such-host.test", ca_file, PATIENCE).subject(ANNA)
