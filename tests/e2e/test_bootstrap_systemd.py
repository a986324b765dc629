"""A service on a host that runs its user's systemd: started again after kill -9, and ended for good."""

import json
import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.cluster_rig import SYSTEMD, ClusterRig, unavailable
from tests.support.processes import PATIENCE, eventually

REASON = unavailable() or ("" if shutil.which(SYSTEMD) else f"it needs {SYSTEMD}")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

LAUNCHER = """
import asyncio, json, pathlib, sys
from p2pmodel.cluster.launcher import ServiceSpec
from p2pmodel.cluster.launchers.ssh import SshLauncher
SERVICE = ServiceSpec("sleeper", ("sh", "-c", 'echo "began $GREETING"; exec sleep 601'), {"GREETING": "it's p2pmodel"})
async def main():
    async with SshLauncher(pathlib.Path(sys.argv[1])).connect("gpu001") as host:
        if sys.argv[2] == "start":
            found = [await host.start(SERVICE), await host.start(SERVICE)]
        elif sys.argv[2] == "state":
            state = await host.state(SERVICE)
            found = [state.running, state.known, state.same, state.log]
        else:
            found = [await host.stop("sleeper"), await host.stop("sleeper")]
    print(json.dumps(found))
asyncio.run(main())
"""


def test_systemd_keeps_a_service_of_a_host_until_it_is_stopped(tmp_path: Path) -> None:
    with ExitStack() as stack:
        rig = ClusterRig(tmp_path / "rig", 1, stack)
        rig.crash("gpu001")
        rig.boot("gpu001", systemd=True)

        def call(what: str) -> list[object]:
            done = rig.start("launcher", [sys.executable, "-c", LAUNCHER, rig.config, what]).wait()
            assert done.code == 0, done.err
            return list(json.loads(done.out))

        def sleepers() -> list[int]:
            found = {pid: Path(f"/proc/{pid}/cmdline") for pid in rig.processes("gpu001")}
            return [pid for pid, file in found.items() if file.exists() and file.read_bytes() == b"sleep\x00601\x00"]

        eventually((rig.folder / "gpu001/run/systemd/private").exists, PATIENCE)
        assert call("start") == [True, False]
        assert (rig.home("gpu001") / ".local/state/p2pmodel/services/sleeper/unit").exists()
        eventually(lambda: len(sleepers()) == 1, PATIENCE)
        (first,) = sleepers()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(sleepers()) == 1 and sleepers() != [first], PATIENCE)
        state: list[object] = []

        def runs_again() -> bool:
            """systemd says so a moment after the process is there."""
            state[:] = call("state")
            return state[:3] == [True, True, True]

        eventually(runs_again, PATIENCE)
        assert "began it's p2pmodel" in str(state[3])
        assert call("stop") == [True, False]
        assert sleepers() == []
