"""What the benchmarks share: the machine in one line, and the pass that everything is compared with."""

import hashlib
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MIB = 1 << 20


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
