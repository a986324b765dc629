"""The URL of a listener of this machine as other machines reach it."""

from urllib.parse import urlsplit

from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.node.local_address import local_address

_ANYWHERE = "http://192.0.2.1"
"""An address of no machine (RFC 5737): the route to it is the default route."""


def reachable_url(bound: str) -> str:
    """The base URL `bound` of a listener; for one on all addresses, with the address of the default route."""
    parts = urlsplit(bound)
    address = ListenAddress(parts.hostname or "", parts.port or 80)
    if not address.unspecified:
        return bound
    host = local_address(_ANYWHERE) or ("127.0.0.1" if ":" not in address.host else "::1")
    return f"{parts.scheme}://{ListenAddress(host, address.port)}"
