"""Network addresses: parsing of ADDRESS:PORT, and grouping of clients by address."""

import ipaddress
import re
from dataclasses import dataclass

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_ADVERTISE_HINT = "give the address, and the port if it is another one, by which other machines reach this one"
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[^\s\[\]:/]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a server listens. `host`: a name or an IP address without brackets; port 0: any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """Parse `ADDRESS:PORT`, with brackets around an IPv6 address. Raises InvalidInput."""
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match["port"]) > 0xFFFF:
            raise InvalidInput(
                f"'{printable(text)}' is not an address with its port", hint="write ADDRESS:PORT, as in 127.0.0.1:8090"
            )
        return cls(match["host"].strip("[]"), int(match["port"]))

    @property
    def unspecified(self) -> bool:
        """Whether it is the wildcard address."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect. A name other than `localhost` does not count as loopback."""
        return is_loopback(self.host) or self.host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class AdvertisedAddress:
    """An address by which other machines reach this one. `port` is None where the listener's own port is right."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port is None else f"{shown}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "AdvertisedAddress":
        """Parse `ADDRESS` or `ADDRESS:PORT`. Raises InvalidInput, also for an address that no other machine reaches."""
        bare = text.strip("[]") if text.startswith("[") == text.endswith("]") else text
        if ":" in bare and not is_ip(bare):
            parsed = ListenAddress.parse(text)
            host, port = parsed.host, parsed.port or None
        else:
            host, port = bare, None
        if not _HOST.fullmatch(host) and not is_ip(host):
            raise InvalidInput(f"'{printable(text)}' is not ADDRESS or ADDRESS:PORT", hint=_ADVERTISE_HINT)
        if is_ip(host) and not is_reachable(host):
            raise InvalidInput(f"no other machine reaches this one at {printable(text)}", hint=_ADVERTISE_HINT)
        return cls(host, port)

    def at(self, port: int) -> ListenAddress:
        """The address of a listener that has the port `port` on this machine."""
        return ListenAddress(self.host, self.port or port)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parsed_address(text: str) -> Address | None:
    """The IP address `text`, without a zone; one of IPv4 mapped into IPv6 as IPv4. None if it is none."""
    try:
        known = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    return mapped or known


def is_ip(text: str) -> bool:
    """Whether `text` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_reachable(address: str) -> bool:
    """Whether other machines may reach the IP address `address`: no wildcard, loopback, link-local or multicast one."""
    known = parsed_address(address)
    if known is None:
        return False
    return not (known.is_unspecified or known.is_loopback or known.is_link_local or known.is_multicast)


def is_loopback(address: str) -> bool:
    """Whether `address` is an IP address of this machine's loopback, also one of IPv4 mapped into IPv6."""
    known = parsed_address(address)
    return known is not None and known.is_loopback


def neighbourhood(address: str) -> str:
    """The key of a remote `address` for limits per client: for IPv6 the /64, which is usually one host's."""
    known = parsed_address(address)
    if known is None:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    return str(known if known.is_loopback else ipaddress.ip_network((known, 64), strict=False))
