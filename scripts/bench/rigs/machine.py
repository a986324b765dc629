"""The machine that a benchmark runs on: its description, its programs, and a clean environment for them."""

import os
import platform
import secrets
import subprocess
import sys
from pathlib import Path

P2PMODEL = [sys.executable, "-m", "p2pmodel"]
HF = str(Path(sys.executable).with_name("hf"))


def describe_machine() -> str:
    """The machine in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"{cores} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}, load {load:.1f}"


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`, such as ext4 or tmpfs."""
    found = "?", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, point, kind, *_rest = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(found[1]):
            found = kind, point
    return found[0]


def environment(home: Path) -> dict[str, str]:
    """The environment of a node that keeps all its files in `home`, without any setting of the caller.

    Nodes with neighbouring homes share the token of one publisher.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "P2PMODEL_", "XDG_"))}
    # With it each node would compile the package at its start, 0.6 s of CPU time; an installed one is compiled.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    quick = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK")
    own = {
        "HOME": str(home),
        "HF_HOME": str(home),
        "P2PMODEL_PUBLISH_TOKEN_FILE": str(publish_token(home.parent)),
        # Most rigs have no mirror that could vouch for a torrent.
        "P2PMODEL_SWARM_TRUST": "coordinator",
    }
    return inherited | own | dict.fromkeys(quick, "1")


def publish_token(place: Path) -> Path:
    """The file with the token of the publisher in `place`. Coordinators take it as --publish-token-file."""
    path = place / "publisher.token"
    if not path.exists():
        place.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(f"{secrets.token_hex(16)}\n")
    return path


def spread_folders(folder: Path) -> None:
    """Let ext4 place every folder in `folder` in another block group.

    Without a journal ext4 skips each recently deleted inode whenever it makes one, and earlier runs deleted many.
    """
    subprocess.run(["chattr", "+T", str(folder)], check=False, capture_output=True)
