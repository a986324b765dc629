"""p2pmodel carried to a host: what is packed, and what a host gets."""

import sys
from pathlib import Path

import pytest

from p2pmodel.cluster.carried import carried
from p2pmodel.cluster.launcher import Completed, HostLook
from p2pmodel.cluster.launchers.memory import MemoryHost
from p2pmodel.cluster.launchers.ssh import SshLauncher
from p2pmodel.errors import InvalidInput, LocalResource
from tests.support.ssh_hosts import SshHosts


def tree(folder: Path, version: str = "1") -> Path:
    package = folder / "p2pmodel"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__/x.pyc").write_bytes(b"x")
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(f"import sys; print('carried', {version!r}, *sys.argv[1:])")
    return folder


async def test_a_tree_is_installed_once_and_runs_without_pip(ssh_hosts: SshHosts, tmp_path: Path) -> None:
    ssh_hosts.add("gpu001")
    package = await carried(tree(tmp_path / "tree"))
    assert package == await carried(tree(tmp_path / "copy"))
    async with SshLauncher(ssh_hosts.config).connect("gpu001") as host:
        look = await host.look()
        for _ in range(2):
            await package.onto(host, look)
        done = await host.run([*package.command(look), "it's", "here"])
        assert done.out == b"carried 1 it's here\n"
        newer = await carried(tree(tmp_path / "newer", "2"))
        await newer.onto(host, look)
        assert (await host.run(newer.command(look))).out == b"carried 2\n"
        assert (await host.run(package.command(look))).out == b"carried 1\n"
    folders = sorted(path.name for path in (ssh_hosts.home("gpu001") / ".local/state/p2pmodel/versions").iterdir())
    assert folders == sorted([package.digest, newer.digest])


async def test_wheels_that_do_not_fit_leave_nothing_behind(ssh_hosts: SshHosts, tmp_path: Path) -> None:
    ssh_hosts.add("gpu001")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "p2pmodel-1-py3-none-any.whl").write_bytes(b"no zip")
    package = await carried(wheels)
    async with SshLauncher(ssh_hosts.config).connect("gpu001") as host:
        look = await host.look()
        with pytest.raises(LocalResource, match="was not installed there"):
            await package.onto(host, look)
        assert (await host.run(["test", "-x", package.command(look)[0]])).code == 1


async def test_a_tree_for_another_python_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree")
    (folder / "libtorrent.cpython-312-x86_64-linux-gnu.so").write_bytes(b"elf")
    package = await carried(folder)
    host = MemoryHost("gpu1", programs={"test": lambda _c, _i: Completed(1, b"", b"")})
    look = HostLook("/state", "/state/s", (), "3.11", 0.0)
    with pytest.raises(LocalResource, match=r"for Python 3\.12, and the host has 3\.11"):
        await package.onto(host, look)


async def test_what_is_no_package_or_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not contain p2pmodel"):
        await carried(tmp_path)
    folder = tree(tmp_path / "tree")
    (folder / "editable.pth").write_text(sys.prefix)
    with pytest.raises(InvalidInput, match=r"\.pth"):
        await carried(folder)
