"""Addresses to listen on and to connect to, as users write them."""

import ipaddress
import re
from dataclasses import dataclass

from p2pmodel.core.names import printable
from p2pmodel.errors import InvalidInput

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[^\s\[\]:/]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a server listens. `host` is a name or a bare IP address; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """Parse `ADDRESS:PORT`; an IPv6 address stands in brackets. Raises InvalidInput."""
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match["port"]) > 0xFFFF:
            raise InvalidInput(
                f"'{printable(text)}' is not an address with its port", hint="write ADDRESS:PORT, as in 127.0.0.1:8090"
            )
        return cls(match["host"].strip("[]"), int(match["port"]))

    @property
    def unspecified(self) -> bool:
        """Whether it stands for all addresses of a machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect. A name other than `localhost` counts as reachable."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


def neighbourhood(address: str) -> str:
    """Whom a remote `address` stands for where clients are counted: of IPv6 the /64, which one host has all of."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(known if known.is_loopback else ipaddress.ip_network((known, 64), strict=False))
