"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as one rule. Pure.

The rule is for requests to the outside: mirrors, their redirects, web seeds and .torrent files of others, webhooks. A
cluster's own connections (coordinators, sources, the control API, peers, trackers) never go through a proxy.
"""

import base64
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import parsed_address
from p2pmodel.errors import InvalidInput

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORTS = {"http": 80, "https": 443}
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that requests can go through. `url` has no credentials; `name` is host:port, for messages."""

    url: str
    name: str
    authorization: str = field(default="", repr=False)
    """The value of Proxy-Authorization, or ""."""

    @property
    def headers(self) -> dict[str, str]:
        """The header with its credentials, if it has any."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


@dataclass(frozen=True, slots=True)
class DirectHosts:
    """What NO_PROXY lists: hosts with their subdomains, addresses and networks, each with a port or for all ports.

    What is none of these matches nothing, as in other programs.
    """

    everything: bool = False
    networks: tuple[tuple[Network, int | None], ...] = ()
    names: tuple[tuple[str, int | None], ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "DirectHosts":
        """From entries such as `*`, `10.0.0.0/8`, `[::1]:8090`, `hub.corp`, `.corp`, `*.corp`, `hub.corp:80`."""
        networks: list[tuple[Network, int | None]] = []
        names: list[tuple[str, int | None]] = []
        entries = [entry.strip().lower() for entry in entries]
        for entry in filter(None, entries):
            host, port = _host_and_port(entry)
            try:
                networks.append((ipaddress.ip_network(host, strict=False), port))
            except ValueError:
                names.append((host.removeprefix("*").strip("."), port))
        return cls(_ALL in entries, tuple(networks), tuple((name, port) for name, port in names if name))

    def cover(self, host: str, port: int) -> bool:
        """Whether requests to `host` and `port` are direct. A name is not resolved."""
        if self.everything:
            return True
        host = host.strip("[]").rstrip(".").lower()
        address = parsed_address(host)
        if address is not None:
            return any(address in network and only in (None, port) for network, only in self.networks)
        return any(only in (None, port) and (host == name or host.endswith(f".{name}")) for name, only in self.names)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy by the scheme of a URL, as the user wrote it, and the hosts that need none."""

    by_scheme: Mapping[str, str] = field(default_factory=dict, repr=False)
    direct: DirectHosts = DirectHosts()

    def of(self, url: str) -> Proxy | None:
        """The proxy for `url`; None: direct. Raises InvalidInput for a proxy that cannot be used."""
        parts = urlsplit(url)
        given = self.by_scheme.get(parts.scheme, "")
        if not given or self.direct.cover(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)):
            return None
        return _proxy(given, parts.scheme)


DIRECT = Proxies()
"""No proxy for any URL."""


def proxies_of(variables: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The proxies by scheme, and the text of NO_PROXY, in the environment `variables`.

    The name in lower case counts before the one in upper case, even if it is empty. HTTP_PROXY is ignored in a CGI
    program, where a client's header `Proxy` sets it.
    """

    def value(name: str) -> str:
        upper = "" if name == "http_proxy" and "REQUEST_METHOD" in variables else variables.get(name.upper(), "")
        return variables.get(name, upper).strip()

    every = value("all_proxy")
    found = {scheme: value(f"{scheme}_proxy") or every for scheme in _PORTS}
    return {scheme: proxy for scheme, proxy in found.items() if proxy}, value("no_proxy")


def _proxy(given: str, scheme: str) -> Proxy:
    """The proxy that `given` names, with or without its scheme."""
    try:
        parts = urlsplit(given if "://" in given else f"http://{given}")
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 1080)
    except ValueError:
        host, port = "", 0
    setting = f"{scheme.upper()}_PROXY, ALL_PROXY or origin.{scheme}_proxy"
    if not host or not host.isascii() or not host.isprintable() or " " in host:
        raise InvalidInput(
            f"the proxy for {scheme}:// URLs is not a URL ({setting})", hint="write http://HOST:PORT, or unset it"
        )
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if parts.scheme not in _PORTS:
        kind = "a SOCKS proxy" if parts.scheme.startswith("socks") else f"one of kind '{printable(parts.scheme, 20)}'"
        raise InvalidInput(
            f"the proxy {name} for {scheme}:// URLs is {kind}, which is not supported ({setting})",
            hint="set it to an HTTP proxy, or list the hosts that need none in NO_PROXY",
        )
    return Proxy(f"{parts.scheme}://{name}", name, _basic(parts.username, parts.password))


def _basic(user: str | None, password: str | None) -> str:
    if user is None and password is None:
        return ""
    pair = f"{unquote(user or '')}:{unquote(password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _host_and_port(entry: str) -> tuple[str, int | None]:
    """An entry of NO_PROXY without its brackets and port. An IPv6 address has a port only behind brackets."""
    host, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and (host.endswith("]") or ":" not in host):
        return host.strip("[]"), int(port)
    return entry.replace("[", "").replace("]", ""), None
