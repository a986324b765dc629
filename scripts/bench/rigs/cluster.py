"""Hosts on one bridge, each in a network namespace with its own limit up and down.

A host may have a second link, to a second bridge with the mirror: its own way out of the cluster.
"""

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.rigs import namespaces
from scripts.bench.rigs.programs import Program

_TAG = "p2ps"
_LINK = "link0"
_OWN, _OWN_DEVICE = "own-", "own0"
_INSIDE, _OUTSIDE = ("bridge0", "10.77"), ("bridge1", "10.78")
"""The bridges and their networks."""
_SETTLE_SECONDS = 5.0
_FILTERED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_UNFILTERED = "net.bridge.bridge-nf-call-iptables=0"


@dataclass(frozen=True, slots=True)
class Link:
    """Bytes per second up and down."""

    up: float
    down: float

    @classmethod
    def of_mbit(cls, mbit: float) -> "Link":
        """The same rate up and down, in Mbit/s."""
        return cls(mbit * 1e6 / 8, mbit * 1e6 / 8)


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of the cluster; `link` is None where the rate has no limit."""

    name: str
    address: str
    namespace: str
    link: Link | None
    zone: str = ""

    def inside(self, command: Sequence[str]) -> list[str]:
        """`command` as it runs on this host."""
        return namespaces.inside(self.namespace, command)


class Cluster:
    """The bridges and their hosts; everything is deleted with `stack`.

    The bridges have a namespace of their own, apart from this machine's network and from other rigs.
    """

    def __init__(self, stack: ExitStack, congestion: str | None = None) -> None:
        self._tag = f"{_TAG}{os.getpid()}"
        self._stack = stack
        self._congestion = congestion
        self._count = 0
        self._zones: dict[str, tuple[str, str]] = {}
        """The bridge of each zone, and its network."""
        self.by_own_link: dict[str, Host] = {}
        """Hosts with their own link to the mirror, by name, with the address on that link."""
        namespaces.add_namespace(self._tag, stack)
        for bridge, _network in (_INSIDE, _OUTSIDE):
            namespaces.ip("-n", self._tag, "link", "add", bridge, "type", "bridge")
            namespaces.ip("-n", self._tag, "link", "set", bridge, "up")
        if _FILTERED.exists():  # this machine's firewall would filter each frame, at 4 % of all processor time
            subprocess.run(namespaces.inside(self._tag, ["sysctl", "-qw", _UNFILTERED]), check=True)
        # /proc/PID/net has the counters of all links in one file, readable from outside the namespace.
        holder = Program(namespaces.inside(self._tag, ["sleep", "infinity"]), stack)
        self._counters = Path(f"/proc/{holder.pid}/net/dev")
        self._await(holder.pid)

    def zone(self, name: str, link: Link) -> None:
        """Add a zone: a bridge of its own, with one link to all hosts in no zone and in other zones."""
        bridge, inner = f"zone-{name}", f"way-{name}"
        namespaces.ip("-n", self._tag, "link", "add", bridge, "type", "bridge")
        namespaces.ip("-n", self._tag, "link", "set", bridge, "up")
        namespaces.join(self._tag, inner, self._tag, f"out-{name}")
        for device, master, rate in ((inner, bridge, link.up), (f"out-{name}", _INSIDE[0], link.down)):
            namespaces.ip("-n", self._tag, "link", "set", device, "master", master, "up")
            namespaces.shape(self._tag, device, rate)
        self._zones[name] = bridge, _INSIDE[1]

    def host(
        self, name: str, link: Link | None, *, own: Link | None = None, outside: bool = False, zone: str = ""
    ) -> Host:
        """Add a host with a name of at most 11 letters; with `own`, a second link to the hosts `outside`. `zone`: one
        that was added, if any."""
        number, self._count = self._count, self._count + 1
        bridge = _OUTSIDE if outside else self._zones.get(zone, _INSIDE)
        host = Host(name, _address(bridge, number), f"{self._tag}-{name}", link, zone)
        namespaces.add_namespace(host.namespace, self._stack)
        self._plug_in(host, bridge, name, _LINK)
        if own is not None:
            other = Host(name, _address(_OUTSIDE, number), host.namespace, own)
            self._plug_in(other, _OUTSIDE, _OWN + name, _OWN_DEVICE)
            self.by_own_link[name] = other
        if self._congestion:
            setting = f"net.ipv4.tcp_congestion_control={self._congestion}"
            subprocess.run(host.inside(["sysctl", "-qw", setting]), check=True)
        return host

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Bytes that each host sent and received so far, after its limits, headers included."""
        found: dict[str, tuple[int, int]] = {}
        for line in self._counters.read_text().splitlines()[2:]:
            name, _, figures = line.partition(":")
            columns = figures.split()
            host = name.strip().removeprefix(_OWN)
            sent, received = found.get(host, (0, 0))
            found[host] = sent + int(columns[0]), received + int(columns[8])
        return found

    def neighbours(self) -> int:
        """Number of other clusters on this machine; their work slows this one."""
        tags = {name.partition("-")[0] for name in namespaces.names() if name.startswith(_TAG)}
        return len(tags - {self._tag})

    def _plug_in(self, host: Host, bridge: tuple[str, str], outer: str, inner: str) -> None:
        namespaces.join(self._tag, outer, host.namespace, inner)
        namespaces.ip("-n", self._tag, "link", "set", outer, "master", bridge[0], "up")
        namespaces.ip("-n", host.namespace, "address", "add", f"{host.address}/16", "dev", inner)
        namespaces.ip("-n", host.namespace, "link", "set", inner, "up")
        if host.link is not None:
            namespaces.shape(host.namespace, inner, host.link.up)
            namespaces.shape(self._tag, outer, host.link.down)

    def _await(self, pid: int) -> None:
        # Before `ip netns exec` has entered the namespace the file shows this machine's own devices.
        for _ in range(int(_SETTLE_SECONDS / 0.01)):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "sleep":
                return
            subprocess.run(["sleep", "0.01"], check=True)
        raise SystemExit("cannot enter the namespace of the bridge")


def _address(bridge: tuple[str, str], number: int) -> str:
    return f"{bridge[1]}.{number // 200}.{number % 200 + 1}"


def congestion_control(host: Host) -> str:
    """Name of the TCP congestion control of `host`."""
    command = host.inside(["cat", "/proc/sys/net/ipv4/tcp_congestion_control"])
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
