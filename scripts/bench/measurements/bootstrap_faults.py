"""A roll-out to eight hosts of which five have a fault each, then to those five alone once they are mended.

The first host, which would have the coordinator and the seeder, is one of the five.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from scripts.bench.rigs.roll_outs import MIB, RolloutRig, roll_outs
from tests.support.cluster_rig import ClusterRig

DOWN, FULL, STRANGE, SLOW, KILLED = "gpu001", "gpu004", "gpu005", "gpu006", "gpu007"
BAD = {DOWN: "off", FULL: "a full disk", STRANGE: "another host key", SLOW: "a slow link", KILLED: "killed midway"}
REASONS = {
    DOWN: "cannot connect",
    FULL: "disk",
    STRANGE: "not the one in known_hosts",
    SLOW: "not ready within",
    KILLED: "its daemon ended",
}
HOSTS = 8
SLOW_RATE = 20_000.0
KILL_AT = 0.3
"""Share of the snapshot after which the daemon is killed."""
COPIES = 2.05
"""Copies that the mirror sends at most: a host to which nothing else delivers 50 kB/s may take one of its own."""
WAIT = 300.0


def measure(size_mb: int, timeout: str) -> dict[str, Any]:
    """Roll out with the faults for `timeout`, then mend them; what does not hold is in `faults`."""
    with roll_outs(HOSTS, None, size_mb) as rig:
        _break(rig.rig, size_mb)
        running = rig.rig.bootstrap(*rig.options, "--timeout", timeout)
        _kill_midway(rig.rig, size_mb)
        first = running.wait(1800)
        print(first.err)
        _mend(rig.rig)
        rest = rig.bootstrap("--limit", "@failed.txt")
        print(rest.err)
        again = rig.bootstrap()
        print(again.err)
        down = rig.bootstrap("--down")
        codes = (first.code, rest.code, again.code, down.code)
        nodes: dict[str, Any] = first.json["nodes"]
        late = {name: node.get("reason", "") for name, node in nodes.items() if name not in BAD}
        reasons = {f"{name}, {fault}": nodes[name].get("reason", "") for name, fault in BAD.items()}
        found = {
            "hosts": HOSTS,
            "snapshot, MiB": size_mb,
            "exit codes": list(codes),
            "healthy hosts ready": first.json["ready"],
            "reasons": reasons,
            "seconds until a healthy host was ready": sorted(
                round(node["seconds"], 1) for name, node in nodes.items() if name not in BAD and node["seconds"]
            ),
            "seconds, the five alone": round(rest.json["seconds"], 1),
            "seconds, all once more": round(again.json["seconds"], 2),
            "copies from the mirror": round(rig.copies, 4),
            "of that, MB, to hosts with a fault": _from_mirrors(rest.json["nodes"]),
        }
        return found | {"faults": _faults(rig, nodes, late, codes, rest.err)}


def _faults(
    rig: RolloutRig, nodes: dict[str, Any], late: dict[str, str], codes: tuple[int, ...], rest: str
) -> list[str]:
    faults = [f"{name} is healthy and failed: {reason}" for name, reason in late.items() if reason]
    unnamed = [name for name, why in REASONS.items() if why not in nodes[name].get("reason", "")]
    faults += [f"{name} is not named with its fault" for name in unnamed]
    faults += [] if "the coordinator is on gpu002" in rest else ["the five did not find the coordinator"]
    faults += [f"exit codes {codes}"] if codes != (8, 0, 0, 0) else []
    return faults + ([f"{rig.copies:.2f} copies"] if rig.copies > COPIES else [])


def _from_mirrors(nodes: dict[str, Any]) -> dict[str, float]:
    found = {f"{name}, {BAD[name]}": node["bytes"]["mirrors"] / 1e6 for name, node in nodes.items()}
    return {name: round(megabytes, 1) for name, megabytes in found.items() if megabytes}


def _break(rig: ClusterRig, size_mb: int) -> None:
    rig.crash(DOWN)
    rig.crash(FULL)
    rig.boot(FULL, cache_bytes=MIB)
    rig.trust(*(name for name in rig.names if name != STRANGE))
    rig.shape(SLOW, SLOW_RATE)
    rig.shape(KILLED, size_mb * MIB / 30)


def _mend(rig: ClusterRig) -> None:
    rig.boot(DOWN)
    rig.crash(FULL)
    rig.boot(FULL)
    rig.trust(*rig.names)
    rig.shape(SLOW, 0)
    rig.shape(KILLED, 0)


def _kill_midway(rig: ClusterRig, size_mb: int) -> None:
    deadline = time.monotonic() + WAIT
    while _used(rig.folder / KILLED / "hf") < KILL_AT * size_mb * MIB:
        if time.monotonic() > deadline:
            raise SystemExit(f"bootstrap: {KILLED} has not begun within {WAIT:g} s")
        time.sleep(0.1)
    os.kill(rig.service(KILLED, "daemon"), signal.SIGKILL)


def _used(folder: Path) -> int:
    """Bytes on disk: files have their whole size from the begin."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total
