"""What every launcher promises: run against real ssh servers and against the twin in memory."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from p2pmodel.client import NoDaemon
from p2pmodel.cluster.launcher import HostUnreachable, Launcher, RemoteHost, ServiceSpec
from p2pmodel.cluster.launchers.memory import MemoryHost, MemoryLauncher
from p2pmodel.cluster.launchers.slurm import SlurmLauncher
from p2pmodel.cluster.launchers.ssh import SshLauncher
from p2pmodel.errors import Conflict, Unavailable
from tests.support.cluster_rig import ClusterRig, unavailable
from tests.support.slurm_rig import SlurmRig, missing
from tests.support.ssh_hosts import SshHosts

HOST = "gpu001"
SERVICE = ServiceSpec(
    "sleeper", ("sh", "-c", "echo p2pmodel began: $GREETING; exec sleep 600"), {"GREETING": "a 'b' c"}
)


class Cluster(Protocol):
    """A launcher with one host, `gpu001`."""

    launcher: Launcher

    def files(self) -> dict[str, bytes]: ...
    def mode(self, path: str) -> int: ...
    def broken(self) -> None: ...


class SshCluster:
    def __init__(self, hosts: SshHosts) -> None:
        self._hosts = hosts
        hosts.add(HOST)
        self.launcher = SshLauncher(hosts.config)

    def files(self) -> dict[str, bytes]:
        home = self._hosts.home(HOST)
        return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}

    def mode(self, path: str) -> int:
        return Path(path).stat().st_mode & 0o777

    def broken(self) -> None:
        self._hosts.stop(HOST)


class MemoryCluster:
    def __init__(self) -> None:
        self._host = MemoryHost(HOST)
        self.launcher = MemoryLauncher(self._host)

    def files(self) -> dict[str, bytes]:
        return self._host.files

    def mode(self, path: str) -> int:
        return 0o600 if path in self._host.files else 0

    def broken(self) -> None:
        self._host.failure = HostUnreachable("gpu001: the connection broke")


class SlurmCluster:
    """One node of a real Slurm; on demand, since it takes Slurm's programs and seconds to start."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack) -> None:
        if reason := unavailable() or missing():
            pytest.skip(reason)
        rig = ClusterRig(folder, 1, stack)
        self._slurm = SlurmRig(rig, stack)
        self._of_node = rig.folder / HOST / "local"
        self._environment = self._slurm.allocate()
        for name, value in self._environment.items():
            monkeypatch.setenv(name, value)
        # srun is to run beside the controller.
        enter = f"nsenter --net=/run/netns/{rig.tag}-launcher"
        for program in ("srun", "scontrol"):
            wrapper = folder / "bin" / program
            wrapper.parent.mkdir(exist_ok=True)
            wrapper.write_text(f'#!/bin/sh\nexec {enter} {shutil.which(program)} "$@"\n')
            wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
        job = self._environment["SLURM_JOB_ID"]
        self.launcher = SlurmLauncher(job, state_dir=str(self._slurm.local / "state"))

    def files(self) -> dict[str, bytes]:
        found = [path for path in self._of_node.rglob("*") if path.is_file()]
        return {str(self._slurm.local / path.relative_to(self._of_node)): path.read_bytes() for path in found}

    def mode(self, path: str) -> int:
        return (self._of_node / Path(path).relative_to(self._slurm.local)).stat().st_mode & 0o777

    def broken(self) -> None:
        self._slurm.cancel(self._environment)


ON_DEMAND = ["slurm"] if os.environ.get("P2PMODEL_TEST_SLURM") == "1" else []


@pytest.fixture(params=["memory", "ssh", *ON_DEMAND])
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            yield MemoryCluster()
        elif request.param == "ssh":
            yield SshCluster(request.getfixturevalue("ssh_hosts"))
        else:
            yield SlurmCluster(tmp_path / "rig", monkeypatch, stack)


@pytest.fixture
async def host(cluster: Cluster) -> AsyncIterator[RemoteHost]:
    async with cluster.launcher.connect(HOST) as connected:
        yield connected
        with contextlib.suppress(HostUnreachable):
            await connected.stop(SERVICE.name)


async def test_a_command_gets_its_input_and_returns_its_output_and_code(host: RemoteHost) -> None:
    odd = 'it\'s $HOME \\ "x" *'
    assert (await host.run(["echo", odd])).out == odd.encode() + b"\n"
    blob = bytes(range(256)) * 1000
    assert (await host.run(["cat"], stdin=blob)).out == blob
    assert (await host.run(["false"])).code == 1
    assert (await host.run(["false"], stdin=blob)).code == 1, "it ends without reading"
    missing = await host.run(["no-such-command"])
    assert missing.code == 127
    assert "not found" in missing.reason


async def test_a_command_that_does_not_end_is_an_error_within_the_bound(host: RemoteHost) -> None:
    with pytest.raises(Unavailable, match="'sleep' has not ended within"):
        await host.run(["sleep", "600"], timeout=0.5)
    assert (await host.run(["echo", "on"])).out == b"on\n"


async def test_a_look_finds_the_places_and_the_clock(host: RemoteHost) -> None:
    found = await host.look()
    assert found.socket.startswith(found.state_dir)
    assert found.p2pmodel[0].endswith("p2pmodel")
    assert abs(found.clock) < 30
    assert found.address


async def test_a_file_is_written_whole_and_private(host: RemoteHost, cluster: Cluster) -> None:
    path = f"{(await host.look()).state_dir}/deep/secret.token"
    await host.write(path, b"first, and longer")
    await host.write(path, b"second")
    assert {path: b"second"}.items() <= cluster.files().items()
    assert cluster.mode(path) == 0o600


async def test_a_service_outlives_the_connection_and_starts_once(cluster: Cluster) -> None:
    async with cluster.launcher.connect(HOST) as first:
        assert not (await first.state(SERVICE)).running
        assert await first.start(SERVICE)
    async with cluster.launcher.connect(HOST) as second:
        assert (await second.state(SERVICE)).running
        assert not await second.start(SERVICE)
        other = ServiceSpec(SERVICE.name, SERVICE.command, {"GREETING": "other"})
        assert not (await second.state(other)).same
        with pytest.raises(Conflict, match="another roll-out"):
            await second.start(other)
        assert await second.stop(SERVICE.name)
        assert not await second.stop(SERVICE.name)
        assert not (await second.state(SERVICE.name)).running


async def test_without_a_daemon_the_control_api_says_so(host: RemoteHost) -> None:
    socket = (await host.look()).socket
    with pytest.raises(Unavailable) as raised:
        async with host.control(socket) as daemon:
            await daemon.node()
    assert isinstance(raised.value, NoDaemon)


async def test_a_broken_connection_is_an_error_that_names_the_host(host: RemoteHost, cluster: Cluster) -> None:
    cluster.broken()
    with pytest.raises(HostUnreachable, match="gpu001"):
        await host.run(["echo", "x"])
    with pytest.raises(HostUnreachable, match="gpu001"):
        await asyncio.wait_for(look(cluster), 60)


async def look(cluster: Cluster) -> None:
    async with cluster.launcher.connect(HOST) as connected:
        await connected.look()
