"""Users of an LDAP directory: they send name and password (HTTP basic authentication), and their groups (bonsai).

A login is a bind as the user over TLS: ldaps, or StartTLS before anything is sent. It runs in a thread, with at most
`ldap.connections` at a time: TLS handshakes on the event loop would hold it. Answers are kept for a bounded time by a
keyed hash of name and password. Without an answer of the server no login succeeds.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cachetools import TTLCache

from p2pmodel.config.sections.access import LdapSettings
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.rights import Presented
from p2pmodel.core.tasks import SingleFlight
from p2pmodel.errors import InvalidInput, P2PModelError, Unavailable
from p2pmodel.trust.access.authoriser import UnknownCredential
from p2pmodel.trust.access.policy import Subject

try:
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
        self._places = asyncio.Semaphore(settings.connections)
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
        async with self._places:
            return await asyncio.to_thread(self._bind, name, password)

    def _bind(self, name: str, password: str) -> Subject:
        """Log in and read the groups. Blocks."""
        settings = self._settings
        assert settings.url is not None
        assert settings.user_dn is not None
        dn = settings.user_dn.replace("{user}", name)
        self._check_reachable(settings.url)
        client = LDAPClient(settings.url, tls=settings.url.startswith("ldap://"))
        client.set_cert_policy("demand")
        if settings.ca_file is not None:
            client.set_ca_cert(str(settings.ca_file))
        client.set_credentials("SIMPLE", user=dn, password=password)
        try:
            # A loop of this thread's own: so every wait for an answer has a bound.
            return Subject("user", name, asyncio.run(self._groups_of(client, dn)))
        except AuthenticationError:
            failure: P2PModelError = UnknownCredential(_WRONG)
        except (LDAPError, TimeoutError, OSError) as error:
            failure = self._silent(type(error).__name__)
        raise failure  # not from there: the library's error would keep its connection open

    def _check_reachable(self, url: str) -> None:
        """Raise Unavailable, with the reason, if the server does not answer or its certificate does not fit. Blocks.

        libldap gives no reason, and waits for a silent server without a bound."""
        parts = urlsplit(url)
        secure, host = parts.scheme == "ldaps", parts.hostname or ""
        context = _trusting(self._settings.ca_file)
        try:
            with (
                socket.create_connection((host, parts.port or (636 if secure else 389)), self._settings.timeout) as raw,
                context.wrap_socket(raw, server_hostname=host) if secure else nullcontext(),
            ):
                return
        except ssl.SSLCertVerificationError as error:
            failure = self._silent(f"its certificate is not trusted: {printable(error.verify_message, 80)}")
        except OSError as error:
            failure = self._silent(printable(error.strerror or "it does not answer", 80))
        raise failure

    async def _groups_of(self, client: LDAPClient, dn: str) -> frozenset[str]:
        async with asyncio.timeout(self._settings.timeout):
            connection = await client.connect(is_async=True, timeout=self._settings.timeout)
            try:
                return frozenset(await self._groups(connection, dn))
            finally:
                connection.close()

    async def _groups(self, connection: Any, dn: str) -> set[str]:
        settings = self._settings
        found = await connection.search(dn, LDAPSearchScope.BASE, attrlist=["memberOf"], timeout=settings.timeout)
        groups = [str(group) for entry in found for group in entry.get("memberOf", [])]
        if settings.group_base is not None:
            listing = await connection.search(
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


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """A context that trusts the authorities in `ca_file` alone; a missing file is an error of its own."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except OSError as error:
        reason = "there is no PEM certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidInput(f"ldap.ca_file {ca_file} cannot be used: {reason}") from None
