"""Small private disks and read-only mounts, for behaviour that only a full or read-only disk shows."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import STRICT


@dataclass(frozen=True)
class Disk:
    """A tmpfs mounted at `path`."""

    path: Path

    def remount(self, options: str) -> None:
        """Change it: `size=20m`, `ro`, ..."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True, capture_output=True)

    def fill(self, size: int) -> Path:
        """Take up `size` bytes, or what is left."""
        path = self.path / "filler"
        try:
            path.write_bytes(bytes(size))
        except OSError:
            assert path.exists()
        return path


@pytest.fixture
def disk() -> Iterator[Callable[[Path, str], Disk]]:
    """`disk(path, "5m")` mounts a disk of that size at `path`. Skips where that is not permitted."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    with ExitStack() as mounted:

        def mount(path: Path, size: str) -> Disk:
            path.mkdir(parents=True, exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                (pytest.fail if STRICT else pytest.skip)(f"cannot mount a small disk: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", "--lazy", path], check=True)
            return Disk(path)

        yield mount


MAKE = {"xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"), "btrfs": ("mkfs.btrfs", "-q")}


@pytest.fixture(params=sorted(MAKE))
def reflink_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk on which files can share blocks, in an image. Skips where that cannot be made."""
    make = MAKE[request.param]
    if os.geteuid() != 0 or shutil.which(make[0]) is None:
        pytest.skip(f"needs root and {make[0]}, to make a disk of {request.param}")
    image, path = tmp_path / "disk.img", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    with ExitStack() as mounted:
        for command in ((*make, str(image)), ("mount", "-o", "loop", str(image), str(path))):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"cannot make a disk of {request.param}: {done.stderr.strip()}")
        mounted.callback(subprocess.run, ["umount", "--lazy", path], check=True)
        yield path


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """`read_only(folder)` makes a folder a read-only bind mount of itself. Skips where that is not permitted."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a folder")
    with ExitStack() as mounted:

        def mount(folder: Path) -> None:
            done = subprocess.run(["mount", "--bind", folder, folder], check=False, capture_output=True, text=True)
            if done.returncode:
                (pytest.fail if STRICT else pytest.skip)(f"cannot mount a folder: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, capture_output=True)

        yield mount


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """One directory, mounted twice by bindfs: as on two machines with a network disk, flock of one does not lock out
    the other."""
    shared, hosts = tmp_path / "shared", (tmp_path / "host-a", tmp_path / "host-b")
    with ExitStack() as mounted:
        shared.mkdir()
        for host in hosts:
            host.mkdir()
            done = subprocess.run(["bindfs", shared, host], check=False, capture_output=True, text=True)
            if done.returncode:
                (pytest.fail if STRICT and Path("/dev/fuse").exists() else pytest.skip)(
                    f"cannot mount with bindfs: {done.stderr.strip()}"
                )
            mounted.callback(subprocess.run, ["fusermount3", "-u", "-z", host], check=True)
        yield hosts
