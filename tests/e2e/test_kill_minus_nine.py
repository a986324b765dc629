"""`kill -9` at any moment loses only the bytes in flight, and a partial file is never visible."""

import logging
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.support.cache_watch import CacheWatch, etags_of
from tests.support.dice import dice
from tests.support.hub_clients import HubClient
from tests.support.processes import PATIENCE, Nodes, Running, eventually, served

__all__ = ["dice"]

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
LOST_AT_MOST = 1 << 20
"""Bytes a kill."""
SMALL_FILES = 6
LOG = logging.getLogger(__name__)  # shown when a test fails


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two large files, and small ones that are published while the large ones come."""
    source = tmp_path / "source"
    sizes = {"a.safetensors": 11_000_001, "b.safetensors": 6_000_000} | {"empty.txt": 0}
    sizes |= {f"part/{n}.txt": 1 + n * 50_000 for n in range(SMALL_FILES)}
    for number, (name, size) in enumerate(sizes.items()):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(size))
    return source


@pytest.fixture
def mirror(nodes: Nodes, model: Path) -> tuple[str, Path]:
    nodes.ok("mirror", "import", model, REPO)
    return nodes.mirror(address="127.0.0.1:0")


@dataclass
class Killer:
    """Starts a command repeatedly, and kills it at moments of `dice`; `at` lists them, for a failing run."""

    start: Callable[[], Running]
    dice: random.Random
    at: list[str] = field(default_factory=list)

    def kill(self, times: int, *, by_clock: int, upto: float = 0.75) -> None:
        """`by_clock` kills a moment after the start, wherever the command is then; the others when it has come
        some way, up to the share `upto`, and never to its end."""
        marks = sorted(self.dice.uniform(0, upto) for _ in range(times - by_clock))
        # Not among the last: a second more, on a busy machine, and they would be through.
        early = self.dice.sample(range(times // 2 + 1), by_clock)
        for number in range(times):
            running = self.start()
            if number in early:
                time.sleep(self.dice.uniform(0.05, 1.0))
            else:
                self._come(running, marks.pop(0))
                time.sleep(self.dice.uniform(0, 0.2))
            progress = running.progress()
            assert running.process.poll() is None, f"it ended before kill {number}: {''.join(running.err[-3:])}"
            running.stop(signal.SIGKILL)
            self.at.append(f"{progress.get('phase', 'starting')} {share(progress):.2f}")
        LOG.warning("killed at %s", self.at)

    def _come(self, running: Running, mark: float) -> None:
        def there() -> bool:
            progress = running.progress()
            moving = progress.get("phase") in ("downloading", "mirroring")
            return running.process.poll() is not None or (moving and share(progress) >= mark)

        eventually(there, PATIENCE, lambda: f"{mark:.2f} of the way: {running.progress()}")


def share(progress: dict[str, int]) -> float:
    return progress["done"] / progress["total"] if progress.get("total") else 0.0


def test_a_fetch_killed_ten_times(nodes: Nodes, model: Path, mirror, dice: random.Random):
    """A kill loses the bytes in flight and those received after the last record, 0.25 or 0.5 s ago: about
    0.4 MB at these rates. Recorded bytes, and those in the staged files, are never downloaded again; if bytes were
    written only with a whole file, this would be 12 to 35 MB."""
    endpoint, log = mirror
    seeder = nodes.start(
        *("seeder", "seed", model, "--as", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0"),
        *("--json", "--progress", "json", "--upload-limit", 2_000_000),
    )
    ready = seeder.ready()
    where = (REPO, "--coordinator", ready["coordinator"], "--endpoint", endpoint)
    other = nodes.fetch("other", *where, "--seed-time", "600", "--upload-limit", 750_000, address="127.0.0.12")
    killer = Killer(lambda: nodes.fetch("peer", *where), dice)
    with watched(nodes, "peer", model):
        killer.kill(10, by_clock=3)
        done = nodes.fetch("peer", *where).wait()
    assert done.code == 0, done.err
    verified_by_the_hubs_own_client(nodes.root / "peer", endpoint)
    eventually(lambda: bool(other.out), PATIENCE, lambda: str(other.progress()))
    wasted = sent(seeder, other) + file_bytes(log) - 2 * ready["size"]
    LOG.warning("sent twice: %.1f MB", wasted / 1e6)
    assert wasted <= 10 * LOST_AT_MOST


@pytest.mark.parametrize("verb", ["seed", "fetch"])
def test_mirroring_killed_three_times(nodes: Nodes, model: Path, mirror, dice: random.Random, verb: str):
    """A kill loses the bytes since the last record: 0.25 s until they are handed to the file, another 0.25 s
    until the file's record includes them; and bytes sent but not yet read, 0.1 s per connection."""
    rate = 4_000_000
    endpoint, _ = mirror
    slow, log = nodes.mirror("--max-bytes-per-second", str(rate), log="slow.log")
    config = nodes.root / "p2pmodel.toml"
    config.write_text(f'[[mirrors]]\nname = "slow"\nendpoint = "{slow}"\nmax_connections = 2\n')
    command = ("seed", REPO, "--once") if verb == "seed" else ("fetch", REPO)
    start = partial(nodes.start, "node", *command, "--config", config, "--json", "--progress", "json")
    killer = Killer(start, dice)
    with watched(nodes, "node", model):
        killer.kill(3, by_clock=0)
        done = start().wait()
    assert done.code == 0, done.err
    verified_by_the_hubs_own_client(nodes.root / "node", endpoint)
    wasted = file_bytes(log) - done.json["size"]
    LOG.warning("sent twice: what takes %.2f s", wasted / rate)
    assert wasted <= 3 * 0.75 * rate


@contextmanager
def watched(nodes: Nodes, node: str, model: Path) -> Iterator[None]:
    """No half file is ever visible in the cache of `node`, and at the end it has every blob."""
    etags = etags_of(model)
    with CacheWatch(nodes.cache(node) / "models--org--model", etags) as watch:
        yield
    assert watch.blobs == set(etags.values())


def sent(*peers: Running) -> int:
    """Payload bytes that these peers have sent, once they have reported it all."""
    before = -1
    while before != (now := sum(peer.progress()["uploaded"] for peer in peers)):
        before = now
        time.sleep(1.0)
    return now


def file_bytes(log: Path) -> int:
    """Bytes of files that a mirror has sent."""
    return sum(entry["bytes"] for entry in served(log) if "/resolve/" in entry["path"])


def verified_by_the_hubs_own_client(home: Path, endpoint: str) -> None:
    client = HubClient(Path(sys.executable), home, endpoint)
    client.hf("cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files")
