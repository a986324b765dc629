"""The LDAP server: logins on a few connections, and the groups of a user (python-ldap).

A login binds a connection anew as the user, and reads that user's entry and groups with the user's own rights.
Connections that are not in use wait for the next login: most logins need no TLS handshake. Each login has a thread of
its own: python-ldap blocks, and lets other threads run meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ldap

from p2pmodel.config.sections.trust import LdapSettings
from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput, Unavailable, UnknownCredential
from p2pmodel.trust.access.ldap_connection import LdapConnection, Unreachable
from p2pmodel.trust.access.ldap_names import UserPattern, group_name, is_below, members_filter, parts_of, spelling
from p2pmodel.trust.access.policy import Subject

WRONG = "name or password are wrong"
SILENT = "it does not answer"
IDLE_SECONDS = 30.0
"""After this time without a login a connection is not used again: a firewall may have forgotten it."""
MOST_GROUPS = 1000
AT_ONCE = 50
"""Groups in one filter."""
HANDSHAKES = 3
"""TLS handshakes at a time: each computes for a millisecond or two on the event loop."""
NO_ATTRIBUTES = ["1.1"]
"""RFC 4511, 4.5.1.8."""
_WRONG = (
    ldap.INVALID_CREDENTIALS,
    ldap.INAPPROPRIATE_AUTH,
    ldap.INVALID_DN_SYNTAX,
    ldap.NO_SUCH_OBJECT,
    # These two: the account is locked.
    ldap.CONSTRAINT_VIOLATION,
    ldap.UNWILLING_TO_PERFORM,
)


class LostConnection(Exception):
    """The connection has ended. If it was an old one, the server may still be there."""


@dataclass(slots=True)
class _Idle:
    connection: LdapConnection
    since: float


class LdapServer:
    """Logs users in. `connect` opens a connection to a URL, with a file of authorities."""

    def __init__(
        self,
        settings: LdapSettings,
        *,
        connect: Callable[[str, Path | None], Awaitable[LdapConnection]] = LdapConnection.open,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert settings.url is not None
        assert settings.user_dn is not None
        self._settings = settings
        self._url = settings.url
        self._users = UserPattern(settings.user_dn)
        if settings.group_base is not None and not parts_of(settings.group_base):
            raise InvalidInput("ldap.group_base is not a distinguished name", hint="as ou=groups,dc=example,dc=org")
        self._connect = connect
        self._clock = clock
        self._idle: list[_Idle] = []
        self._handshakes = asyncio.Semaphore(HANDSHAKES)
        self._closed = False

    async def login(self, name: str, password: str) -> Subject:
        """The user `name`, with its groups, within `ldap.timeout` seconds. Raises UnknownCredential, and Unavailable
        with the reason."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                kept = await self._take()
                if kept is not None:
                    with suppress(LostConnection):
                        return await self._on(kept, name, password)
                async with self._handshakes:
                    opened = await self._connect(self._url, self._settings.ca_file)
                return await self._on(opened, name, password)
        except TimeoutError:
            reason = SILENT
        except LostConnection:
            reason = "it ends the connection"
        except Unreachable as error:
            reason = str(error)
        raise self.unavailable(reason)

    def unavailable(self, reason: str) -> Unavailable:
        """The error for a server that cannot be asked."""
        return Unavailable(
            f"the LDAP server {self._url} cannot be asked ({reason})",
            hint="check that it runs, its name, and that ldap.ca_file signed its certificate",
        )

    async def close(self) -> None:
        """End the connections that wait, and each other one after its login."""
        idle, self._idle, self._closed = self._idle, [], True
        for each in idle:
            await _end(each.connection)

    async def _on(self, connection: LdapConnection, name: str, password: str) -> Subject:
        """Log in on a connection, which waits for the next login afterwards, or is ended if it is of no more use."""
        usable = False
        # Not one of those of `asyncio.to_thread`: other work would wait for a slow server.
        thread = ThreadPoolExecutor(1, thread_name_prefix="ldap")
        asking = asyncio.get_running_loop().run_in_executor(thread, self._subject, connection.library, name, password)
        try:
            found = await asyncio.shield(asking)
            usable = True
        except UnknownCredential:
            usable = True
            raise
        else:
            return found
        finally:
            if usable and not self._closed:
                self._idle.append(_Idle(connection, self._clock()))
            else:
                await connection.close()
                await asyncio.gather(asking, return_exceptions=True)  # it has failed by now
                await _end(connection)
            thread.shutdown(wait=False)

    async def _take(self) -> LdapConnection | None:
        """The connection that was used last, if it is young enough; older ones are ended."""
        young = self._clock() - IDLE_SECONDS
        old = [each for each in self._idle if each.since < young]
        self._idle = [each for each in self._idle if each.since >= young]
        taken = self._idle.pop().connection if self._idle else None
        for each in old:
            await _end(each.connection)
        return taken

    def _subject(self, library: Any, name: str, password: str) -> Subject:
        """Bind as the user, and read its entry and groups. Blocks."""
        try:
            return self._bound(library, name, password)
        except (ldap.SERVER_DOWN, ldap.CONNECT_ERROR, ldap.UNAVAILABLE):
            failure: Exception = LostConnection()
        except ldap.TIMEOUT:
            failure = self.unavailable(SILENT)
        except ldap.LDAPError as error:
            failure = self.unavailable(_reason(error))
        raise failure

    def _bound(self, library: Any, name: str, password: str) -> Subject:
        library.set_option(ldap.OPT_REFERRALS, 0)
        library.timeout = self._settings.timeout
        dn = self._users.dn(name)
        try:
            library.simple_bind_s(dn, password)
        except _WRONG:
            raise UnknownCredential(WRONG) from None
        try:
            found = _entries(library.search_ext_s(dn, ldap.SCOPE_BASE, attrlist=["memberOf"]))
        except (ldap.NO_SUCH_OBJECT, ldap.INSUFFICIENT_ACCESS):
            found = {}
        known = next((self._users.name(each) for each in found), None)
        if known is None:
            raise self.unavailable("it does not let users read their own entries")
        ((written, attributes),) = found.items()
        listed = [value.decode(errors="replace") for value in attributes.get("memberof", [])]
        groups = self._groups(library, written, listed)
        return Subject("user", known, frozenset(filter(None, map(group_name, groups))))

    def _groups(self, library: Any, dn: str, listed: list[str]) -> list[str]:
        """The distinguished names of the groups of the entry `dn`; `listed`: those that it says itself."""
        base = self._settings.group_base
        if base is None:
            return listed
        groups: dict[Hashable, str] = {}
        asked, found = [dn], [group for group in listed if is_below(group, base)]
        for _ in range(self._settings.group_depth):
            found += self._listing(library, base, asked)
            new = {key: group for group in found if (key := spelling(group)) not in groups}
            groups |= new
            if len(groups) > MOST_GROUPS:
                raise self.unavailable(f"a user is in more than {MOST_GROUPS} groups")
            asked, found = list(new.values()), []
            if not asked:
                break
        return list(groups.values())

    def _listing(self, library: Any, base: str, members: list[str]) -> list[str]:
        found: list[str] = []
        for start in range(0, len(members), AT_ONCE):
            which = members_filter(members[start : start + AT_ONCE])
            answer = library.search_ext_s(
                base, ldap.SCOPE_SUBTREE, which, attrlist=NO_ATTRIBUTES, sizelimit=MOST_GROUPS
            )
            found += _entries(answer)
        return found


def _entries(answer: list[tuple[Any, Any]]) -> dict[str, dict[str, list[bytes]]]:
    """The entries of an answer by distinguished name, their attributes by name in lower case; without referrals."""
    return {dn: {name.lower(): values for name, values in found.items()} for dn, found in answer if dn is not None}


async def _end(connection: LdapConnection) -> None:
    """End a connection that no thread uses."""
    with suppress(ldap.LDAPError):
        connection.library.unbind_s()
    await connection.close()


def _reason(error: ldap.LDAPError) -> str:
    """What the library says of an error, in one line."""
    told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return printable(str(told.get("desc") or type(error).__name__), 80)
