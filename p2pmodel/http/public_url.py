"""The URL by which clients reach this server, for absolute URLs in its answers.

Behind a reverse proxy it has another scheme, host and path than the request that arrives. The setting
`http.public_url` says what it is. Without it the headers X-Forwarded-Proto, -Host and -Prefix do, if they are of a
proxy on this machine or in `http.trusted_proxies`; of other clients they are ignored.
"""

import re

from aiohttp import web
from yarl import URL

from p2pmodel.core.network.addresses import is_loopback
from p2pmodel.errors import InvalidInput
from p2pmodel.http.admission.forwarded import THROUGH_PROXY

PUBLIC_URL = web.AppKey("PUBLIC_URL", str)
"""The URL that is configured, without a slash at its end."""

_SCHEMES = ("http", "https")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")


def public_base(request: web.Request) -> str:
    """The URL of this server for the client of `request`, without a slash at its end. Raises InvalidInput."""
    configured = request.config_dict.get(PUBLIC_URL)
    if configured:
        return configured
    try:
        own = request.url.origin()
    except ValueError:
        raise InvalidInput("invalid Host header") from None
    if not _is_of_near_proxy(request):
        return str(own)
    scheme = _first(request, "X-Forwarded-Proto")
    host = _first(request, "X-Forwarded-Host")
    prefix = _first(request, "X-Forwarded-Prefix").rstrip("/")
    return "".join(
        (
            scheme if scheme in _SCHEMES else own.scheme,
            "://",
            host if _HOST.fullmatch(host) else own.raw_authority,
            prefix if _PREFIX.fullmatch(prefix) and ".." not in prefix else "",
        )
    )


def public_url(request: web.Request) -> URL:
    """The URL of `request` as its client sent it. Raises InvalidInput."""
    return URL(f"{public_base(request)}{request.rel_url.raw_path_qs}", encoded=True)


def _first(request: web.Request, header: str) -> str:
    """The value that the nearest client of a row of proxies saw."""
    return request.headers.get(header, "").partition(",")[0].strip()


def _is_of_near_proxy(request: web.Request) -> bool:
    if request.get(THROUGH_PROXY):
        return True
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return isinstance(peer, tuple) and is_loopback(str(peer[0]))
