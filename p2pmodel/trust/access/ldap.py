"""Users of an LDAP directory: they send name and password (HTTP basic authentication), and their groups (bonsai).

A login is a bind as the user over TLS: ldaps, or StartTLS before anything is sent. It runs in a thread, with at most
`ldap.connections` at a time: TLS handshakes would hold the event loop. Answers are kept for a bounded time by a keyed
hash of name and password. Without an answer of the server no login succeeds.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cachetools import TTLCache

from p2pmodel.config.sections.access import LdapSettings
from p2pmodel.core.network.rights import Presented
from p2pmodel.core.tasks import SingleFlight
from p2pmodel.errors import InvalidInput, Unavailable
from p2pmodel.trust.access.authoriser import UnknownCredential
from p2pmodel.trust.access.policy import Subject

try:
    import bonsai
    from bonsai import LDAPClient, LDAPSearchScope
    from bonsai.errors import AuthenticationError, LDAPError
    from bonsai.utils import escape_filter_exp
except ImportError:
    raise InvalidInput(
        "ldap.url is set, and bonsai is not installed",
        hint="install libldap-dev, libsasl2-dev and gcc, then pip install 'p2pmodel[ldap]'",
    ) from None

MOST_KNOWN = 10_000
MOST_WAITING = 256
"""Logins that wait or run; further ones are refused."""
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
"""Names of users: none of these characters has a meaning in a distinguished name or a filter."""
_WRONG = "name or password are wrong"


class LdapDirectory:
    """The users of one directory; `ttl`: seconds for which a login is remembered."""

    def __init__(self, settings: LdapSettings, *, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._secret = secrets.token_bytes(32)
        self._known: TTLCache[bytes, Subject] = TTLCache(MOST_KNOWN, ttl, timer=clock)
        self._logins: SingleFlight[bytes, Subject] = SingleFlight()
        self._threads = ThreadPoolExecutor(settings.connections, "ldap")
        self._waiting = 0

    def recognises(self, presented: Presented) -> bool:
        """Whether it is HTTP basic authentication, or a bearer token NAME:PASSWORD, as hub clients can send it."""
        return presented.authorization.partition(" ")[0].lower() == "basic" or ":" in presented.bearer

    async def subject(self, presented: Presented) -> Subject:
        """As `Directory`. An empty password is refused before the server is asked: some take it for no login."""
        name, password = _name_and_password(presented)
        if not password or "\0" in password or not _USER.fullmatch(name):
            raise UnknownCredential(_WRONG)
        key = hmac.digest(self._secret, f"{name}\0{password}".encode(), hashlib.sha256)
        known = self._known.get(key)
        if known is not None:
            return known
        if self._waiting >= MOST_WAITING:
            raise Unavailable("too many logins wait for the LDAP server", hint="try again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(2 * self._settings.timeout):
                subject = await self._logins.join(key, lambda: self._login(name, password))
        except TimeoutError:
            raise self._silent() from None
        finally:
            self._waiting -= 1
        self._known[key] = subject
        return subject

    async def _login(self, name: str, password: str) -> Subject:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._bind, name, password)

    def _bind(self, name: str, password: str) -> Subject:
        """Log in and read the groups. Blocks."""
        settings = self._settings
        assert settings.url is not None
        assert settings.user_dn is not None
        dn = settings.user_dn.replace("{user}", name)
        client = LDAPClient(settings.url, tls=settings.url.startswith("ldap://"))
        client.set_cert_policy("demand")
        if settings.ca_file is not None:
            client.set_ca_cert(str(_checked_authorities(settings.ca_file)))
        client.set_credentials("SIMPLE", user=dn, password=password)
        try:
            with client.connect(timeout=settings.timeout) as connection:
                return Subject("user", name, frozenset(self._groups(connection, dn)))
        except AuthenticationError:
            raise UnknownCredential(_WRONG) from None
        except (LDAPError, TimeoutError, OSError) as error:
            raise self._silent(type(error).__name__) from None

    def _groups(self, connection: "bonsai.LDAPConnection", dn: str) -> set[str]:
        settings = self._settings
        found = connection.search(dn, LDAPSearchScope.BASE, attrlist=["memberOf"], timeout=settings.timeout)
        groups = [str(group) for entry in found for group in entry.get("memberOf", [])]
        if settings.group_base is not None:
            listing = connection.search(
                settings.group_base,
                LDAPSearchScope.SUBTREE,
                f"(member={escape_filter_exp(dn)})",
                attrlist=["cn"],
                timeout=settings.timeout,
            )
            groups += [str(entry.dn) for entry in listing]
        return {name for group in groups if (name := _common_name(group))}

    def _silent(self, why: str = "it does not answer") -> Unavailable:
        return Unavailable(
            f"the LDAP server {self._settings.url} cannot be asked ({why})",
            hint="check that it runs, its name, and that ldap.ca_file signed its certificate",
        )


def _name_and_password(presented: Presented) -> tuple[str, str]:
    if presented.bearer:
        name, _, password = presented.bearer.partition(":")
        return name, password
    try:
        plain = base64.b64decode(presented.authorization.partition(" ")[2].strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise UnknownCredential("the Authorization header is malformed") from None
    name, _, password = plain.partition(":")
    return name, password


def _common_name(group: str) -> str:
    """`ml` of `cn=ml,ou=groups,...`."""
    first = group.partition(",")[0]
    kind, _, name = first.partition("=")
    return name.strip() if kind.strip().lower() == "cn" and name.strip().isprintable() else ""


def _checked_authorities(path: Path) -> Path:
    """The path of a usable file of authorities: a missing one is an error of its own, not one of the connection."""
    try:
        ssl.create_default_context(cafile=str(path))
    except OSError as error:
        reason = "there is no PEM certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidInput(f"ldap.ca_file {path} cannot be used: {reason}") from None
    return path
