"""`p2pmodel seed` as a process of its own: seeder, tracker and catalog."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.swarm.torrents import Format
from tests.support.eventually import PATIENCE
from tests.support.mirror_process import first_line

DEAD_ENDPOINT = "http://127.0.0.1:9"
"""No server listens there, so all received data is from peers."""


@dataclass(frozen=True)
class SeedProcess:
    """A running seeder of `repo` that uses the coordinator at `coordinator`."""

    repo: str
    coordinator: str

    def torrent(self, form: Format) -> bytes:
        """The .torrent, from the catalog."""
        url = f"{self.coordinator}/catalog?repo={self.repo}&revision=main&format={form}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            data: bytes = answer.read()
        return data


@contextlib.contextmanager
def seed_process(hub: Path, repo: str, *options: str) -> Iterator[SeedProcess]:
    """Seed `repo` from the cache at `hub`, which has all of it, in all formats until the context is left."""
    command = [sys.executable, "-m", "p2pmodel", "seed", repo, "--json", "-q", "--listen", "127.0.0.1:0"]
    command += ["--cache-dir", str(hub), "--endpoint", DEAD_ENDPOINT, "--format", "hybrid", "--format", "v1", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        yield SeedProcess(repo, json.loads(first_line(process))["coordinator"])
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
