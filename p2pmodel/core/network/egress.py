"""Which addresses a URL given by others may lead to: redirects, sources of coordinators and magnets, web seeds. Pure.

Public addresses are admitted; loopback, link-local and private ones only if a rule names them, for behind them are
services that trust this machine. The rule is applied to the address of each connection, after the name is resolved: see
`http_pool`.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
AddressKind = Literal["public", "loopback", "link-local", "private", "reserved"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_INSIDE = (_NAT64, *map(ipaddress.ip_network, ("::ffff:0:0/96", "::/96", "2002::/16", "2001::/32")))
"""IPv6 networks with an IPv4 address in each address."""
_LOOPBACK = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1")))
_LINK_LOCAL = tuple(
    map(
        ipaddress.ip_network,
        # The last four: metadata services of clouds, which belong to this machine as a link-local address does.
        ("169.254.0.0/16", "fe80::/10", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10", "64:ff9b:1::/48"),
    )
)
_RESERVED = tuple(map(ipaddress.ip_network, ("0.0.0.0/8", "::", "224.0.0.0/4", "ff00::/8", "255.255.255.255")))
# Not in a list, so admitted: 198.18.0.0/15, to which the DNS of some local proxies resolves every public name.
_KINDS: tuple[tuple[AddressKind, tuple[Network, ...]], ...] = (
    ("loopback", _LOOPBACK),
    ("link-local", _LINK_LOCAL),
    ("private", _PRIVATE),
    ("reserved", _RESERVED),
)
MALFORMED = "a malformed URL"
_HINT = "write addresses, networks such as 10.0.0.0/8, or host names"


@dataclass(frozen=True, slots=True)
class Egress:
    """A rule. `networks` and `hosts` are admitted besides public addresses."""

    networks: frozenset[Network] = frozenset()
    hosts: frozenset[str] = frozenset()
    """Names and addresses in lower case; whatever such a name resolves to is admitted."""
    ourselves: bool = False
    """Whether the addresses that this process listens on are admitted."""

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Egress":
        """The rule that admits each of `texts`: an address, a network or a host name. Raises InvalidInput."""
        networks: set[Network] = set()
        hosts: set[str] = set()
        for text in texts:
            try:
                networks.add(ipaddress.ip_network(text.strip("[]")))
            except ValueError:
                if not text or not text.isascii() or not text.isprintable() or any(c in text for c in "/:@?#[] "):
                    raise InvalidInput(
                        f"'{printable(text)}' is neither a network nor a host name", hint=_HINT
                    ) from None
                hosts.add(text.lower())
        return cls(frozenset(networks), frozenset(hosts))

    def __or__(self, other: "Egress") -> "Egress":
        return Egress(self.networks | other.networks, self.hosts | other.hosts, self.ourselves or other.ourselves)

    def around(self, address: str) -> "Egress":
        """This rule for URLs that the server at `address` gives: its own private block, or loopback, is admitted too.
        An empty address stands for an unknown one."""
        known = _parsed(address)
        near = next((block for block in (*_LOOPBACK, *_PRIVATE) if known is not None and known in block), None)
        if near is None:
            return self
        blocks = _LOOPBACK if near in _LOOPBACK else (near,)
        return replace(self, networks=self.networks | frozenset(blocks))

    def in_cluster(self, coordinator: str) -> "Egress":
        """This rule for the sources that the coordinator at address `coordinator` gives: nodes of a cluster have
        private addresses, and loopback ones only if the coordinator has one."""
        own = self.around(coordinator)
        return replace(own, networks=own.networks | frozenset(_PRIVATE), ourselves=True)

    @property
    def ranges(self) -> tuple[tuple[Network, bool], ...]:
        """The rule for engines, which know addresses alone: networks, and whether they are admitted. A later one
        overrides an earlier one; what is in none is admitted. IPv6 forms of IPv4 addresses are not."""
        near = {n for n in self.networks if kind_of(str(n[0])) == "link-local"}
        wide = {n for n in self.networks - near if n.prefixlen < _IPV4_INSIDE[0].prefixlen}
        steps = (
            ((*_LOOPBACK, *_LINK_LOCAL, *_PRIVATE, *_RESERVED), False),
            (wide, True),
            (_IPV4_INSIDE, False),
            (self.networks - near - wide, True),
            (_LINK_LOCAL, False),
            (near, True),
        )
        return tuple((network, admitted) for networks, admitted in steps for network in networks)

    def names(self, host: str) -> bool:
        """Whether `host` is admitted by its name."""
        return host.strip("[]").lower() in self.hosts

    def refusal(self, address: str) -> str:
        """Why a connection to `address` is not admitted, as "ADDRESS, a loopback address"; empty if it is."""
        known = _parsed(address)
        if known is None:
            return f"{printable(address, 60)}, which is no address"
        kind = kind_of(address)
        # A link-local address is admitted by a network of such addresses only, not by a larger one around it.
        near = [n for n in self.networks if known in n and (kind != "link-local" or kind_of(str(n[0])) == kind)]
        return "" if kind == "public" or near else f"{printable(address, 60)}, a {kind} address"

    def url_refusal(self, url: str) -> str:
        """As `refusal`, for what a URL shows without DNS: an address, `localhost`, the port. Other names are admitted:
        the address that they resolve to is to be checked."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return MALFORMED
        if not host or (port is not None and port < 1):
            return MALFORMED
        if self.names(host):
            return ""
        if host == "localhost" or host.endswith(".localhost"):
            return self.refusal("127.0.0.1")
        return self.refusal(host) if _parsed(host) is not None else ""


PUBLIC = Egress()
"""Public addresses only."""


def kind_of(address: str) -> AddressKind:
    """What `address` is; of an IPv6 address with an IPv4 address inside, what that is."""
    known = _parsed(address)
    if known is None:
        return "reserved"
    return next((kind for kind, blocks in _KINDS if any(known in block for block in blocks)), "public")


def _parsed(address: str) -> Address | None:
    """The address, of which IPv6 forms of IPv4 addresses are unwrapped."""
    try:
        known = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(known, ipaddress.IPv6Address):
        low = ipaddress.IPv4Address(int(known) & 0xFFFFFFFF)
        inside = known.ipv4_mapped or known.sixtofour or (known.teredo[1] if known.teredo else None)
        if inside is not None:
            return inside
        if known in _NAT64 or (int(known) >> 32 == 0 and int(known) > 1):
            return low
    return known
