"""The machines of a scenario, each in a network namespace with shaped links, joined as the topology says.

`a` and `b` are the two networks. Servers are in `a`, the peers in turns in both. Everything is deleted with the stack.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from scripts.bench.rigs import namespaces
from scripts.bench.rigs.cluster import Link
from scripts.bench.rigs.programs import Program
from scripts.soaking.scenario import Setting

TAG = "p2pk"
COORDINATOR_NAME = "coordinator.soak"
_ETC = Path("/etc/netns")
_NETS = {"a": "10.81.0", "b": "10.82.0"}
_ROUTER_NUMBER, _MOVED_NUMBER = 254, 200
_UNFILTERED = "net.bridge.bridge-nf-call-iptables=0"
_FILTERED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_SLOW_BURST = 16 << 10
_PACKAGES = {"nft": "nftables", "nginx": "nginx-light"}
_tags = count()


def unavailable() -> str:
    """The reason why this machine cannot have such a rig; "" if it can."""
    if reason := namespaces.unavailable():
        return reason
    missing = [package for program, package in _PACKAGES.items() if not shutil.which(program)]
    return f"it needs the Debian packages {' and '.join(missing)}" if missing else ""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine. `addresses` by network; `rack` for the firewall."""

    name: str
    namespace: str
    addresses: dict[str, str]
    rack: str

    @property
    def address(self) -> str:
        """The address in its first network."""
        return next(iter(self.addresses.values()))

    def inside(self, command: Sequence[str]) -> list[str]:
        """`command` as it runs on this machine."""
        return namespaces.inside(self.namespace, command)

    def seen_from(self, other: "Machine") -> str:
        """Its address for `other`: the one in a common network, if there is one."""
        return next((address for net, address in self.addresses.items() if net in other.addresses), self.address)


def in_url(address: str) -> str:
    """`address` as the host of a URL."""
    return f"[{address}]" if ":" in address else address


class Network:
    """The namespaces of one run of a `setting`, with machines of the links `links` by role."""

    def __init__(self, setting: Setting, links: dict[str, Link], stack: ExitStack) -> None:
        self._setting = setting
        self._stack = stack
        self._tag = f"{TAG}{os.getpid()}x{next(_tags)}"
        self._numbers = count(1)
        namespaces.add_namespace(self._tag, stack)
        for net in _NETS:
            namespaces.ip("-n", self._tag, "link", "add", f"br-{net}", "type", "bridge")
            namespaces.ip("-n", self._tag, "link", "set", "dev", f"br-{net}", "up")
        if _FILTERED.exists():
            subprocess.run(namespaces.inside(self._tag, ["sysctl", "-qw", _UNFILTERED]), check=True)
        holder = Program(namespaces.inside(self._tag, ["sleep", "infinity"]), stack)
        self._counters = Path(f"/proc/{holder.pid}/net/dev")
        both = ("a", "b") if setting.topology == "multihomed" else ("a",)
        self.coordinator = self._machine("coord", both, links["coordinator"], "")
        self.mirrors = [self._machine(f"mirror{n}", both, links["mirror"], "") for n in range(1, setting.mirrors + 1)]
        self.seeder = None if setting.begin == "cold" else self._machine("seeder", both, links["seeder"], "a")
        self.peers = [self._peer(number, links["peer"]) for number in range(setting.peers)]
        if setting.topology in ("routed", "nat"):
            self._route()
        if setting.topology == "firewall":
            self._wall_off()
        self.name_coordinator(self.coordinator.address)

    @property
    def machines(self) -> list[Machine]:
        """All machines, without the router."""
        return [self.coordinator, *self.mirrors, *([self.seeder] if self.seeder else []), *self.peers]

    def received(self, machine: Machine) -> int:
        """Bytes that reached `machine` so far, headers included."""
        found = 0
        for line in self._counters.read_text().splitlines()[2:]:
            device, _, figures = line.partition(":")
            if device.strip().rpartition("-")[0] == machine.name:
                found += int(figures.split()[8])
        return found

    # -- faults ----------------------------------------------------------------------------------------------

    def unplug(self, machine: Machine) -> None:
        """Take all links of `machine` down, without a word to anyone."""
        for net in machine.addresses:
            namespaces.ip("-n", machine.namespace, "link", "set", "dev", f"eth-{net}", "down")

    def throttle(self, machine: Machine, rate: float) -> None:
        """Limit what `machine` sends and receives to `rate` bytes per second."""
        limit = ["rate", f"{int(rate * 8)}bit", "burst", str(_SLOW_BURST), "latency", "400ms"]
        for net in machine.addresses:
            for namespace, device in ((machine.namespace, f"eth-{net}"), (self._tag, f"{machine.name}-{net}")):
                command = ["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf", *limit]
                subprocess.run(command, check=True)

    def move_coordinator(self) -> str:
        """Give the coordinator another address, which its name leads to from now on; the old one is gone."""
        moved = self._address("a", _MOVED_NUMBER)
        self._set_address(self.coordinator.namespace, "a", moved, "add")
        self._set_address(self.coordinator.namespace, "a", self.coordinator.address, "del")
        self.name_coordinator(moved)
        return moved

    def name_coordinator(self, address: str) -> None:
        """Let the coordinator's name lead to `address` on all machines."""
        for machine in self.machines:
            hosts = _ETC / machine.namespace / "hosts"
            # Written in place: running programs see this very file as /etc/hosts.
            hosts.write_text(f"127.0.0.1 localhost\n::1 localhost\n{address} {COORDINATOR_NAME}\n")

    # -- building --------------------------------------------------------------------------------------------

    def _peer(self, number: int, link: Link) -> Machine:
        split = self._setting.topology in ("routed", "nat", "multihomed")
        net = "b" if split and number % 2 else "a"
        return self._machine(f"peer{number + 1}", (net,), link, "b" if number % 2 else "a")

    def _machine(self, name: str, nets: Sequence[str], link: Link, rack: str) -> Machine:
        namespace, number = f"{self._tag}-{name}", next(self._numbers)
        folder = _ETC / namespace
        folder.mkdir(parents=True)
        self._stack.callback(_remove_folder, folder)
        (folder / "hosts").touch()
        namespaces.add_namespace(namespace, self._stack)
        machine = Machine(name, namespace, {net: self._address(net, number) for net in nets}, rack)
        for net, address in machine.addresses.items():
            self._plug_in(machine.namespace, name, net, address)
            namespaces.shape(namespace, f"eth-{net}", link.up)
            namespaces.shape(self._tag, f"{name}-{net}", link.down)
        return machine

    def _plug_in(self, namespace: str, name: str, net: str, address: str) -> None:
        outer, inner = f"{name}-{net}", f"eth-{net}"
        namespaces.join(self._tag, outer, namespace, inner)
        namespaces.ip("-n", self._tag, "link", "set", "dev", outer, "master", f"br-{net}", "up")
        namespaces.ip("-n", namespace, "link", "set", "dev", inner, "up")
        self._set_address(namespace, net, address, "add")

    def _set_address(self, namespace: str, net: str, address: str, verb: str) -> None:
        v6 = ":" in address
        what = [f"{address}/{64 if v6 else 24}", "dev", f"eth-{net}", *(["nodad"] if v6 and verb == "add" else [])]
        namespaces.ip("-n", namespace, "address", verb, *what)

    def _address(self, net: str, number: int) -> str:
        if self._setting.topology == "ipv6":
            return f"fd{_NETS[net].split('.')[1]}::{number:x}"
        return f"{_NETS[net]}.{number}"

    def _route(self) -> None:
        """A router between the networks; with NAT, `a` knows nothing of `b`."""
        router = f"{self._tag}-router"
        namespaces.add_namespace(router, self._stack)
        for net in _NETS:
            self._plug_in(router, "router", net, self._address(net, _ROUTER_NUMBER))
        subprocess.run(namespaces.inside(router, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]), check=True)
        nat = self._setting.topology == "nat"
        for machine in self.machines:
            net = next(iter(machine.addresses))
            if net == "b" or not nat:
                gateway = self._address(net, _ROUTER_NUMBER)
                namespaces.ip("-n", machine.namespace, "route", "add", "default", "via", gateway)
        if nat:
            _nft(router, 'chain nat { type nat hook postrouting priority 100; oifname "eth-a" masquerade; }')

    def _wall_off(self) -> None:
        """Each rack drops what comes from machines of the other one."""
        for machine in self.machines:
            others = [m.address for m in self.machines if m.rack and machine.rack and m.rack != machine.rack]
            if others:
                drop = f"ip saddr {{ {', '.join(others)} }} drop;"
                _nft(machine.namespace, f"chain input {{ type filter hook input priority 0; {drop} }}")


def _nft(namespace: str, chain: str) -> None:
    rules = f"table inet soak {{\n{chain}\n}}\n"
    subprocess.run(namespaces.inside(namespace, ["nft", "-f", "-"]), check=True, text=True, input=rules)


def _remove_folder(folder: Path) -> None:
    (folder / "hosts").unlink(missing_ok=True)
    folder.rmdir()
