"""Counters of nftables on one host: bytes that it sends to each of its neighbours, by source port."""

import json
import subprocess
from collections.abc import Sequence

from scripts.bench.rigs.cluster import Host

_TABLE = "sent"


def count(host: Host, peers: Sequence[Host], ports: Sequence[int]) -> None:
    """Count what `host` sends from `ports` to each of `peers`, from now on."""
    lines = [f"table inet {_TABLE} {{"]
    lines += [f"counter {peer.name} {{}}" for peer in peers]
    lines.append("chain out { type filter hook output priority 0;")
    chosen = ", ".join(map(str, ports))
    lines += [f"ip daddr {peer.address} tcp sport {{ {chosen} }} counter name {peer.name}" for peer in peers]
    rules = "\n".join([*lines, "}", "}"])
    subprocess.run(host.inside(["nft", "-f", "-"]), input=rules, text=True, check=True)


def sent(host: Host) -> dict[str, int]:
    """Bytes so far, IP and TCP headers included, by the name of the receiver."""
    command = host.inside(["nft", "-j", "list", "counters", "table", "inet", _TABLE])
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    counters = (each["counter"] for each in found["nftables"] if "counter" in each)
    return {each["name"]: int(each["bytes"]) for each in counters}
