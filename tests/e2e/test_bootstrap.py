"""`p2pmodel bootstrap` on hosts with real ssh servers, each in a network namespace of its own."""

import json
import os
import random
import re
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2pmodel.node.assembly.membership import FIRST_BYTES
from tests.support.cluster_rig import ClusterRig, unavailable
from tests.support.processes import PATIENCE, eventually
from tests.support.tiny_models import dense

__all__ = ["dense"]

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())

SIZE = 16 << 20
DOWN, FULL, STRANGE, SLOW, KILLED = "gpu003", "gpu004", "gpu005", "gpu006", "gpu007"
BAD = [DOWN, FULL, STRANGE, SLOW, KILLED]
HOSTS = ("--hosts", "gpu[001-008]")
LIMITS = '[swarm]\ndownload_limit = "2GB"\nupload_limit = "2GB"\n'
MIRROR = 'repos = ["org/*"]\nmax_bytes_per_second = "1GB"\n'


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ClusterRig]:
    with ExitStack() as stack:
        yield ClusterRig(tmp_path / "rig", 8, stack)


def test_a_bootstrap_names_the_hosts_that_fail_and_finishes_them_later(
    rig: ClusterRig, tmp_path: Path, dense: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for file in dense.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "more.bin").write_bytes(random.Random(1).randbytes(SIZE))
    endpoint, log = rig.hub(source)
    config = tmp_path / "p2pmodel.toml"
    config.write_text(f'[[mirrors]]\nname = "near"\nendpoint = "{endpoint}"\n{MIRROR}')
    options = (*HOSTS, "--config", str(config))
    for name in rig.names:
        rig.settings(name, LIMITS)
    size = sum(file.stat().st_size for file in source.iterdir())

    began = time.monotonic()
    plan = rig.bootstrap(*options, "--dry-run").wait()
    preflight = time.monotonic() - began
    assert plan.code == 0, plan.err
    assert "8 of 8 hosts pass the preflight; nothing was started" in plan.err
    assert not list(rig.folder.glob("gpu*/home/.local/state/p2pmodel/services"))

    # Five hosts with a fault each.
    rig.crash(DOWN)
    rig.crash(FULL)
    rig.boot(FULL, cache_bytes=1 << 20)
    rig.trust(*(name for name in rig.names if name != STRANGE))
    rig.shape(SLOW, size / 200)
    rig.shape(KILLED, size / 30)
    # A machine that is slower than this one gets more time.
    running = rig.bootstrap(*options, "--timeout", f"{min(150, 8 + 6 * preflight):.0f}s")
    eventually(lambda: "fetching" in "".join(running.err), PATIENCE, lambda: "".join(running.err))
    eventually(lambda: any("of all bytes" in line for line in running.err), PATIENCE, lambda: "".join(running.err))
    os.kill(rig.service(KILLED, "daemon"), signal.SIGKILL)
    done = running.wait(10 * PATIENCE)
    assert done.code == 8, done.err
    nodes = done.json["nodes"]
    assert {name for name, node in nodes.items() if node["stage"] == "failed"} == set(BAD), done.err
    carried = rig.folder / "gpu001/home/.local/state/p2pmodel/cluster/settings/p2pmodel.toml"
    assert (stat.S_IMODE(carried.stat().st_mode), "repos = [" in carried.read_text()) == (0o600, True)
    # The mirror's limit came from here, those of the nodes from their own settings: only of a host that was cut off
    # before it reported may the link be unknown.
    bound = done.json["rollout"]["bound"]
    assert not bound["unknown"] or re.match(rf"the rate of the link to ({'|'.join(BAD)}) ", bound["unknown"]), bound
    rates = {part["link"]: (part["rate"], part["source"]) for part in bound["parts"]}
    if rates:
        rate, known = rates["the mirrors"]
        assert (rate % 10**9, known) == (0, "declared"), bound
        assert "the uplink of the seeders" not in rates, bound  # all hosts mirrored a part
    reasons = {name: nodes[name]["reason"] for name in BAD}
    expected = {DOWN: "cannot connect", FULL: "disk", STRANGE: "not the one in known_hosts", SLOW: "not ready within"}
    for name, text in (expected | {KILLED: "its daemon ended"}).items():
        assert text in reasons[name], reasons
        assert f"{name}: " in done.err
    good = [name for name in rig.names if name not in BAD]
    assert not [line for line in done.err.splitlines() if "does not seed" in line], done.err
    command = Path(f"/proc/{rig.service('gpu001', 'seed')}/cmdline").read_bytes()
    assert b"--assemble" in command, command
    pids = {name: rig.service(name, "daemon") for name in good}

    # Mended, the five are finished, and no other host is touched.
    rig.boot(DOWN)
    rig.crash(FULL)
    rig.boot(FULL)
    rig.trust(*rig.names)
    rig.shape(SLOW, 0)
    rig.shape(KILLED, 0)
    sessions = {name: (rig.folder / name / "sshd.log").read_text().count("Accepted") for name in good}
    rest = rig.bootstrap(*options, "--limit", "@failed.txt").wait(5 * PATIENCE)
    assert rest.code == 0, rest.err
    assert sorted(rest.json["nodes"]) == BAD
    assert rest.json["rollout"]["gates"][0]["passed"] == len(BAD), rest.json["rollout"]
    touched = [name for name in good if (rig.folder / name / "sshd.log").read_text().count("Accepted") > sessions[name]]
    assert touched in ([], ["gpu001"])  # the coordinator's host is asked for the coordinator
    sent = sum(json.loads(line)["sent"] for line in log.read_text().splitlines())
    # What a host has begun to pull when it is killed or cut off is pulled again: a slice each.
    assert sent <= 1.05 * size + 2 * FIRST_BYTES

    # Once more for all: nothing changes, and less is done than a preflight takes.
    again = rig.bootstrap(*options).wait()
    assert (again.code, again.json["changed"], again.json["ready"]) == (0, False, 8), again.err
    assert {name: rig.service(name, "daemon") for name in good} == pids
    assert again.json["seconds"] < max(5.0, preflight)

    # A command of the user's on two of the hosts: one that ends at once is named, another one keeps running.
    two = (*options, "--limit", "gpu[001-002]", "--serve-command")
    failing = rig.bootstrap(*two, "echo no engine >&2; exit 3").wait()
    assert failing.code == 8, failing.err
    assert "the command has ended: no engine" in failing.json["nodes"]["gpu001"]["reason"]
    served = tmp_path / "served"
    serving = rig.bootstrap(*two, f"env >>{served}; sleep 600").wait()
    assert (serving.code, serving.json["nodes"]["gpu002"]["serving"]) == (0, True), serving.err
    environment = served.read_text().splitlines()
    for line in (f"HF_HOME={rig.folder}/gpu002/hf", f"HF_HUB_CACHE={rig.folder}/gpu002/hf/hub", "HF_HUB_OFFLINE=1"):
        assert environment.count(line) >= 1, environment

    down = rig.bootstrap(*HOSTS, "--down").wait()
    assert down.code == 0, down.err
    for name in rig.names:
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in rig.processes(name)]
        left = [command for command in commands if b"p2pmodel\0" in command or command.startswith(b"sleep\0")]
        assert not left, commands
