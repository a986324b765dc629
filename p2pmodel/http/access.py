"""Access checks for requests over TCP. A unix socket does not need them: its file mode limits the clients."""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from p2pmodel.errors import AccessDenied, Forbidden


@dataclass(frozen=True, slots=True)
class Access:
    """The rule for one address. With `token`, clients must send it; without, every client that can connect is admitted.

    Requests that a web page causes in a browser on this machine are refused: cross-site requests, and requests under a
    DNS name (DNS rebinding). `any_name` admits DNS names in the Host header, for TLS with client certificates: TLS then
    authenticates both the name and the client.
    """

    token: str | None = field(default=None, repr=False)
    any_name: bool = False

    def check(self, headers: Mapping[str, str], *, public: bool = False) -> None:
        """Raise Forbidden or AccessDenied for a request with `headers` that is not admitted. `public`: no token."""
        host = headers.get("Host", "")
        origin = headers.get("Origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise Forbidden("a page of another site sent this request", hint="open the node's own address")
        # Browsers send no Origin with images and links of a page, and such a GET could start a download here.
        if headers.get("Sec-Fetch-Site", "").lower() == "cross-site" and not public:
            raise Forbidden("a page of another site sent this request", hint="open the node's own address")
        if self.token is not None:
            if not public:
                self._check_token(headers.get("Authorization", ""))
        elif not self.any_name and not _is_this_machine(host):
            raise Forbidden(f"this node does not accept the name '{host[:80]}'", hint="use its IP address or localhost")

    def _check_token(self, authorization: str) -> None:
        assert self.token is not None
        scheme, _, given = authorization.partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise AccessDenied("this node requires its token", hint="send 'Authorization: Bearer TOKEN'")


def _is_this_machine(host: str) -> bool:
    """Whether the Host header `host` is an IP address or `localhost`, and no DNS name, which may be another's."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
