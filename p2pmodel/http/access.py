"""Who may ask over TCP. A unix socket needs none of this: its file mode says who may connect."""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from p2pmodel.errors import AccessDenied, Forbidden


@dataclass(frozen=True, slots=True)
class Access:
    """With a `token`, who sends it. Without, whoever can connect; but no web page that a browser here happens to show:
    neither under a name that its owner points at this machine, nor across sites. With `any_name` the node may be called
    by names, too: TLS checks that they are its own, and who is asking."""

    token: str | None = field(default=None, repr=False)
    any_name: bool = False

    def check(self, headers: Mapping[str, str], *, public: bool = False) -> None:
        """Raise Forbidden or AccessDenied for a request with `headers` that is not let in. `public` needs no token."""
        host = headers.get("Host", "")
        origin = headers.get("Origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise Forbidden("a page of another site asked", hint="open the node's own address")
        # An image or a link of that page: browsers send no Origin with it, and it would bring a model here.
        if headers.get("Sec-Fetch-Site", "").lower() == "cross-site" and not public:
            raise Forbidden("a page of another site asked", hint="open the node's own address")
        if self.token is not None:
            if not public:
                self._check_token(headers.get("Authorization", ""))
        elif not self.any_name and not _is_this_machine(host):
            raise Forbidden(f"this node is not known as '{host[:80]}'", hint="ask it by its IP address, or localhost")

    def _check_token(self, authorization: str) -> None:
        assert self.token is not None
        scheme, _, given = authorization.partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise AccessDenied("this node asks for its token", hint="send 'Authorization: Bearer TOKEN'")


def _is_this_machine(host: str) -> bool:
    """Whether `host`, a Host header, is an IP address or `localhost`: no name that somebody else gives out."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
