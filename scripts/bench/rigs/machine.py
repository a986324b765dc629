"""What the benchmarks share: the machine in one line, snapshots of random bytes, a clean environment, and the pass that
everything is compared with."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MIB = 1 << 20
P2PMODEL = [sys.executable, "-m", "p2pmodel"]


def rig() -> str:
    """The machine in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"{cores} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}, load {load:.1f}"


def file_system(folder: Path) -> str:
    """The type of the file system that `folder` lies on, such as ext4 or tmpfs."""
    found = "?", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, point, kind, *_rest = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(found[1]):
            found = kind, point
    return found[0]


def bare_sha256_pass(paths: list[Path], jobs: int) -> None:
    """sha256 of every file, whole files in parallel, 1 MiB at a time."""

    def digest(path: Path) -> str:
        hasher = hashlib.sha256()
        buffer = memoryview(bytearray(MIB))
        with path.open("rb", buffering=0) as source:
            while count := source.readinto(buffer):
                hasher.update(buffer[:count])
        return hasher.hexdigest()

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(digest, paths))


def environment(home: Path) -> dict[str, str]:
    """The environment of a node with `home` for all it keeps, without anything of the caller's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "P2PMODEL_", "XDG_"))}
    quick = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK")
    return kept | {"HOME": str(home), "HF_HOME": str(home)} | dict.fromkeys(quick, "1")


def spread(folder: Path) -> None:
    """Have ext4 put every folder in `folder` somewhere else on the disk. Without a journal it looks past each inode
    deleted lately whenever it makes one, and earlier runs have deleted many."""
    subprocess.run(["chattr", "+T", str(folder)], check=False, capture_output=True)


def write_random(path: Path, size: int) -> None:
    """A new file of `size` random bytes."""
    with path.open("wb") as out:
        for start in range(0, size, MIB):
            out.write(os.urandom(min(MIB, size - start)))


def import_directory(source: Path, repo: str, cache: Path) -> str:
    """Import the files below `source` into the hub cache `cache` as `repo`; returns the commit."""
    command = [*P2PMODEL, "import", str(source), repo, "--cache-dir", str(cache), "-q", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout)["commit"])
