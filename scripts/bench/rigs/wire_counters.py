"""Counters of nftables on one host: bytes that it sends to each of its neighbours, by source port, and bytes that it
receives from some of them."""

import json
import subprocess
from collections.abc import Sequence

from scripts.bench.rigs.cluster import Host

_TABLE = "sent"
_OUTSIDE = "outside"


def count(host: Host, peers: Sequence[Host], ports: Sequence[int]) -> None:
    """Count what `host` sends from `ports` to each of `peers`, from now on."""
    lines = [f"table inet {_TABLE} {{"]
    lines += [f"counter {peer.name} {{}}" for peer in peers]
    lines.append("chain out { type filter hook output priority 0;")
    chosen = ", ".join(map(str, ports))
    lines += [f"ip daddr {peer.address} tcp sport {{ {chosen} }} counter name {peer.name}" for peer in peers]
    _apply(host, [*lines, "}", "}"])


def count_from(host: Host, others: Sequence[Host]) -> None:
    """Count what `host` receives from `others` over TCP, from now on."""
    addresses = ", ".join(other.address for other in others)
    rule = f"ip saddr {{ {addresses} }} meta l4proto tcp counter name {_OUTSIDE}"
    hook = "chain in { type filter hook input priority 0;"
    _apply(host, [f"table inet {_OUTSIDE} {{", f"counter {_OUTSIDE} {{}}", hook, rule, "}", "}"])


def received_from(host: Host) -> int:
    """Bytes that came from the hosts of `count_from` so far, IP and TCP headers included."""
    return _counters(host, _OUTSIDE)[_OUTSIDE]


def sent(host: Host) -> dict[str, int]:
    """Bytes so far, IP and TCP headers included, by the name of the receiver."""
    return _counters(host, _TABLE)


def _apply(host: Host, lines: Sequence[str]) -> None:
    subprocess.run(host.inside(["nft", "-f", "-"]), input="\n".join(lines), text=True, check=True)


def _counters(host: Host, table: str) -> dict[str, int]:
    command = host.inside(["nft", "-j", "list", "counters", "table", "inet", table])
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    counters = (each["counter"] for each in found["nftables"] if "counter" in each)
    return {each["name"]: int(each["bytes"]) for each in counters}
