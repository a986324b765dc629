"""Users of an LDAP directory: they send name and password (HTTP basic authentication), and their groups.

`ldap.connections` logins run at a time. Answers are kept for a bounded time by a keyed hash of
name and password. Without an answer of the server no login succeeds.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from cachetools import TTLCache

from p2pmodel.config.sections.trust import LdapSettings
from p2pmodel.core.network.rights import RequestCredentials
from p2pmodel.core.tasks import SingleFlight
from p2pmodel.errors import Unavailable, UnknownCredential
from p2pmodel.trust.access.ldap_names import is_name
from p2pmodel.trust.access.ldap_server import SILENT, WRONG, LdapServer
from p2pmodel.trust.access.policy import Subject

MOST_KNOWN = 10_000
MOST_WAITING = 256
"""Logins that wait or run; further ones are refused."""


class LdapDirectory:
    """The users of one directory; `ttl`: seconds for which a login is remembered."""

    def __init__(
        self,
        settings: LdapSettings,
        *,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
        server: LdapServer | None = None,
    ) -> None:
        self._patience = settings.timeout
        self._server = server or LdapServer(settings)
        self._secret = secrets.token_bytes(32)
        self._known: TTLCache[bytes, Subject] = TTLCache(MOST_KNOWN, ttl, timer=clock)
        self._logins: SingleFlight[bytes, Subject] = SingleFlight()
        self._places = asyncio.Semaphore(settings.connections)
        self._waiting = 0

    def recognises(self, presented: RequestCredentials) -> bool:
        """Whether it is HTTP basic authentication, or a bearer token NAME:PASSWORD, as hub clients can send it."""
        return presented.authorization.partition(" ")[0].lower() == "basic" or ":" in presented.bearer

    async def subject(self, presented: RequestCredentials) -> Subject:
        """As `Directory`. An empty password is refused before the server is asked: some take it for no login."""
        name, password = _name_and_password(presented)
        if not password or "\0" in password or not is_name(name):
            raise UnknownCredential(WRONG)
        key = hmac.digest(self._secret, f"{name}\0{password}".encode(), hashlib.sha256)
        known = self._known.get(key)
        if known is not None:
            return known
        if self._waiting >= MOST_WAITING:
            raise Unavailable("too many logins wait for the LDAP server", hint="try again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(2 * self._patience):
                subject = await self._logins.join(key, lambda: self._login(name, password))
        except TimeoutError:
            raise self._server.unavailable(SILENT) from None
        finally:
            self._waiting -= 1
        self._known[key] = subject
        return subject

    async def close(self) -> None:
        """As `Directory`."""
        await self._logins.close()
        await self._server.close()

    async def _login(self, name: str, password: str) -> Subject:
        """Log in when there is a place. When the client is no longer waiting by then, the server is not asked."""
        asked = time.monotonic()
        async with self._places:
            if time.monotonic() >= asked + 2 * self._patience:
                raise self._server.unavailable(SILENT)
            return await self._server.login(name, password)


def _name_and_password(presented: RequestCredentials) -> tuple[str, str]:
    if presented.bearer:
        name, _, password = presented.bearer.partition(":")
        return name, password
    try:
        plain = base64.b64decode(presented.authorization.partition(" ")[2].strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise UnknownCredential("the Authorization header is malformed") from None
    name, _, password = plain.partition(":")
    return name, password
