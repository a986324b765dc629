"""Snapshots that scenarios share, each made once: its files, a hub cache with it, and a coordinator that knows it."""

import hashlib
import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.rigs.machine import P2PMODEL, environment, publish_token
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.snapshots import import_directory, write_model

REPO = "soak/model"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`cache` has it; `state` is the state of a coordinator that has its torrent. `digests` (sha256) by path."""

    size: int
    cache: Path
    state: Path
    digests: dict[str, str]

    def place_in(self, cache: Path) -> None:
        """Let `cache` have it, too, without a copy of its content."""
        shutil.copytree(self.cache, cache, symlinks=True, copy_function=os.link)


def make(place: Path, size: int) -> Snapshot:
    """A snapshot of about `size` bytes, with all its files below `place`."""
    source, cache, state = place / "source", place / "hub", place / "state"
    source.mkdir(parents=True)
    exact = write_model(source, size)
    import_directory(source, REPO, cache)
    with ExitStack() as stack:
        _publish(place, cache, state, stack)
    files = [path for path in source.rglob("*") if path.is_file()]
    digests = {path.relative_to(source).as_posix(): _digest(path) for path in files}
    shutil.rmtree(source)
    return Snapshot(exact, cache, state, digests)


def digests_in(folder: Path) -> dict[str, str]:
    """The sha256 of each file below `folder`, by path; links are followed."""
    return {path.relative_to(folder).as_posix(): _digest(path) for path in folder.rglob("*") if path.is_file()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(place: Path, cache: Path, state: Path, stack: ExitStack) -> None:
    env, token = environment(place / "home"), str(publish_token(place))
    listen = ["--listen", "127.0.0.1:0", "--state-dir", str(state), "--publish-token-file", token, "--json", "-q"]
    coordinator = Program([*P2PMODEL, "coordinator", *listen], stack, env=env, log=place / "coordinator.log")
    url = coordinator.first()["url"]
    seed = [*P2PMODEL, "seed", REPO, "--once", "--coordinator", url, "--cache-dir", str(cache), "--json", "-q"]
    done = subprocess.run(seed, env=env | {"HF_HUB_OFFLINE": "1"}, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the snapshot cannot be published: {done.stderr}")
