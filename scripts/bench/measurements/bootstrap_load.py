"""A roll-out up to the first token: a tiny Qwen3-VL and a filler, loaded on each host once its files are there."""

import json
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.bench.rigs.roll_outs import RolloutRig, fill, roll_outs
from scripts.demonstration.tiny_qwen3_vl import build
from tests.support.processes import Finished

PROMPT = "How many colours can you see?"
LOAD = ("--load", "--prompt", PROMPT, "--timeout", "25m")
AGREE = 2.0
"""Seconds by which the report and a node's log may differ: a report is sent again until it is taken."""


def measure(hosts: int, size_mb: int) -> dict[str, Any]:
    """Roll the model out, and once more; what does not hold is in `faults`."""
    with tempfile.TemporaryDirectory(prefix="p2pm") as folder:
        source = build(Path(folder) / "model")
        fill(source, size_mb, "filler-{}.bin")
        with roll_outs(hosts, source, size_mb) as rig:
            return _measured(rig, hosts)


def _measured(rig: RolloutRig, hosts: int) -> dict[str, Any]:
    first = rig.bootstrap(*LOAD)
    print(first.err)
    logins = _logins(rig)
    again = rig.bootstrap(*LOAD)
    print(again.err)
    looks = {name: count - logins[name] for name, count in _logins(rig).items()}
    rollout: dict[str, Any] = first.json["rollout"]
    shown = _shown(rig, rollout["id"])
    print(shown.out)
    off = {gate: _off(rig, _nodes(rig, rollout["id"]), gate) for gate in ("files", "loaded", "answered")}
    gates = {gate["gate"]: gate for gate in rollout["gates"]}
    found = {
        "hosts": hosts,
        "snapshot, MB": round(rig.size / 1e6, 1),
        "exit codes": [first.code, again.code, shown.code],
        "seconds, first run": round(first.json["seconds"], 2),
        **{f"last host, {name}": _rounded(gate["last"]) for name, gate in gates.items()},
        "slowest load": round(max(node["load_seconds"] for node in first.json["nodes"].values()), 2),
        "slowest first token": round(max(node["first_token_seconds"] for node in first.json["nodes"].values()), 2),
        "copies from the mirror": round(rig.copies, 4),
        "report against logs, most seconds": off,
        "seconds, second run": round(again.json["seconds"], 2),
        "second run changed": again.json["changed"],
        "logins at each host in the second run": sorted(set(looks.values())),
    }
    faults = {
        "a gate is not passed by all": any(gate["passed"] != hosts for gate in gates.values()) or len(gates) != 3,
        "more than 1.05 copies": rig.copies > 1.05,
        "report and logs differ": any(each is None or each > AGREE for each in off.values()),
        "the second run did something": again.code != 0 or again.json["changed"] or set(looks.values()) != {1},
        "the second run took 5 s": again.json["seconds"] >= 5.0,
    }
    rig.bootstrap("--down")
    return found | {"faults": [name for name, wrong in faults.items() if wrong]}


def _logins(rig: RolloutRig) -> dict[str, int]:
    """How often the launcher has logged in at each host."""
    return {n: (rig.rig.folder / n / "sshd.log").read_text().count("Accepted") for n in rig.rig.names}


def _shown(rig: RolloutRig, ident: str, *options: str) -> Finished:
    state = rig.rig.home(rig.rig.names[0]) / ".local/state/p2pmodel"
    environment = {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(state / "cluster/member.token")}
    url = f"http://{rig.rig.address(rig.rig.names[0])}:6969"
    command = ("python3", "-m", "p2pmodel", "rollout", "show", ident, "--coordinator", url, *options)
    return rig.rig.start("launcher", command, **environment).wait(60)


def _nodes(rig: RolloutRig, ident: str) -> Mapping[str, Any]:
    """The nodes of a roll-out, by name, as `rollout show --json` prints them."""
    return {node["name"]: node for node in _shown(rig, ident, "--json").json["nodes"]}


def _off(rig: RolloutRig, nodes: Mapping[str, Any], gate: str) -> float | None:
    """The most seconds between the time of a gate in the report and in the log of its node; None without a line."""
    most = 0.0
    for name in rig.rig.names:
        log = rig.rig.home(name) / ".local/state/p2pmodel/services/daemon/log"
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        if gate == "files":
            found = [line for line in lines if line["event"] == "snapshot_ready"]
        else:
            found = [line for line in lines if line["event"] == "engine_reported" and line["state"] == gate]
        if not found or gate not in nodes[name]["gates"]:
            return None
        logged = datetime.fromisoformat(found[0]["timestamp"]).timestamp()
        most = max(most, abs(logged - nodes[name]["gates"][gate][1]))
    return round(most, 2)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
