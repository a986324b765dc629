"""The checks of a request's header that every HTTP server makes, and the check of a bearer token.

A browser sends requests for any web page. `RequestGuard` refuses those of other sites: by the headers `Origin` and
`Sec-Fetch-Site`, by the name in `Host` (DNS rebinding makes a page of another site one of the same origin), and by the
content types of forms. A page can add headers, but it cannot remove those that its browser adds.
"""

import base64
import binascii
import hmac
import ipaddress
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import AccessDenied, Forbidden, UnsupportedContent

WRONG_TOKEN = web.RequestKey("WRONG_TOKEN", bool)
"""Key of a request that presented a wrong token or key. Such requests are counted for each address."""

_READING = ("GET", "HEAD", "OPTIONS")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
_BROWSER = ("Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Referer", "Cookie", "Accept-Language")
"""Headers of browsers. All browsers send Accept-Language, and those before it on some requests only."""
_ANOTHER_SITE = "a page of another site sent this request"


@dataclass(frozen=True, slots=True)
class RequestGuard:
    """The rule of one server.

    `secured`: every path that is not `public` needs a token or a client certificate. Pages of other sites may link to
    `public` paths. `forms`: clients other than browsers may send forms, for servers where a form changes nothing.
    `own_user`: over loopback only this process's user and root are admitted. `hosts`: names of this server; `closed`:
    it accepts no other names.
    """

    secured: bool = False
    public: Collection[str] = ()
    forms: bool = False
    own_user: bool = False
    hosts: Collection[str] = ()
    closed: bool = True

    @classmethod
    def of(
        cls,
        http: HttpSettings,
        *,
        secured: bool,
        public: Collection[str] = (),
        forms: bool = False,
        own_user: bool = False,
        url: str | None = None,
    ) -> "RequestGuard":
        """The rule with the names and local users that `http` admits, and the name in the server's public `url`."""
        hosts = {*http.allowed_hosts, *([urlsplit(url).hostname or ""] if url else [])}
        own_user = own_user and not secured and not http.allow_local_users
        return cls(secured, frozenset(public), forms, own_user, hosts)

    def at(self, address: ListenAddress, *, tls: bool) -> "RequestGuard":
        """The rule for an address, with the names of this machine. With TLS the certificate proves the name."""
        own = socket.gethostname().lower()
        hosts = {"localhost", own, own.partition(".")[0], *(name.lower().rstrip(".") for name in self.hosts)}
        return replace(self, hosts=frozenset(hosts - {""}), closed=address.loopback and not tls)

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Raise Forbidden or UnsupportedContent for a request that a web page of another site may have caused."""
        browser = any(name in headers for name in _BROWSER)
        host = headers.get("Host", "")
        self._check_name(host, browser=browser)
        origin = headers.get("Origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise Forbidden(_ANOTHER_SITE, hint="open the server's own address")
        if browser and not (path in self.public and method in _READING):
            self._check_site(headers)
        if method not in _READING and _content_type(headers) in _FORMS and (browser or not self.forms):
            raise UnsupportedContent("forms are not accepted", hint="send application/json")

    def _check_name(self, host: str, *, browser: bool) -> None:
        if not host and not browser:  # HTTP/1.0
            return
        name = _name(host)
        if name is None or (
            name not in self.hosts and not _is_ip(name) and (self.closed or self._is_at_risk(browser=browser))
        ):
            raise Forbidden(
                f"this server does not accept the name '{printable(host[:80])}'",
                hint="use its IP address or localhost, or add the name to http.allowed_hosts",
            )

    def _is_at_risk(self, *, browser: bool) -> bool:
        # Off loopback a server has names that it does not know. Only a browser can be led to it by a wrong one, and
        # gets nothing there without a credential.
        return browser and not self.secured

    def _check_site(self, headers: Mapping[str, str]) -> None:
        site = headers.get("Sec-Fetch-Site", "").lower()
        if site not in ("", "same-origin", "none"):
            raise Forbidden(_ANOTHER_SITE, hint="open the server's own address")
        if not site and "Origin" not in headers and not self.secured:
            # Browsers state the site of a request only to loopback and over HTTPS.
            raise Forbidden(
                "a page of another site may have sent this request", hint="use a client that is not a browser"
            )


class ServerToken:
    """The token of a running server, which a reload replaces."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "ServerToken()"

    @property
    def value(self) -> str:
        """The token that clients must send now."""
        return self._value

    def replace(self, value: str) -> None:
        """Require `value` from the next request on."""
        self._value = value


def check_bearer(request: web.Request, token: str | ServerToken) -> None:
    """Raise AccessDenied unless the request presents `token`. A wrong token is marked for the throttle."""
    given = request.headers.get("Authorization")
    if given is not None and is_bearer(given, token):
        return
    if given is not None:
        request[WRONG_TOKEN] = True
    raise AccessDenied("this node requires its token", hint="send 'Authorization: Bearer TOKEN'")


def is_bearer(authorization: str, token: str | ServerToken) -> bool:
    """Whether the header `authorization` presents `token`. Takes the same time for every wrong token."""
    scheme, _, given = authorization.partition(" ")
    value = token.value if isinstance(token, ServerToken) else token
    right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), value.encode())
    return right and scheme.lower() == "bearer"


def is_token(authorization: str, token: str | ServerToken) -> bool:
    """As `is_bearer`, or as the password of basic authentication (RFC 7617), with any user: clients that take nothing
    but a URL send it so."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "basic":
        return is_bearer(authorization, token)
    try:
        decoded = base64.b64decode(given.strip(), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    password = decoded.partition(b":")[2].decode("utf-8", "replace")
    return is_bearer(f"Bearer {password}", token)


@lru_cache(maxsize=1024)
def _name(host: str) -> str | None:
    """The host of the Host header without its port; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
        return None if parts.path or parts.username is not None else (parts.hostname or "").rstrip(".") or None
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _content_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()
