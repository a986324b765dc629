"""A source that is stopped midway keeps its connections and sends nothing: the fetch ends from another source in time.

Each stopped process is a host that hangs. Nothing is refused or closed, so that only what is delivered can tell.
"""

import random
import signal
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, Nodes, Running, eventually

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
SIZE = 6_000_000
NOWHERE = "http://127.0.0.9:9"
RATE = 2_000_000
QUICK = {"P2PMODEL_SWARM_PEER_TIMEOUT": "2", "P2PMODEL_SWARM_STALL_TIMEOUT": "600"}
"""The bound of a silent source; a fetch that waited for the stall timeout would outlast the test."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.safetensors").write_bytes(random.Random(number).randbytes(SIZE // 3))
    return source


@pytest.fixture
def endpoint(nodes: Nodes, model: Path) -> str:
    """A mirror that has the snapshot."""
    nodes.ok("mirror", "import", model, REPO)
    return nodes.mirror()[0]


def coordinator(nodes: Nodes) -> str:
    return str(nodes.start("coordinator", "coordinator", "--listen", "127.0.0.4:0", "--json", "-q").ready()["url"])


def stop_midway(source: Running, fetch: Running) -> None:
    eventually(lambda: 0 < fetch.progress().get("done", 0) < SIZE, PATIENCE, lambda: str(fetch.progress()))
    source.process.send_signal(signal.SIGSTOP)


def check(model: Path, fetch: Running) -> dict[str, object]:
    done = fetch.wait()
    assert done.code == 0, done.err
    snapshot = Path(done.json["path"])
    assert {p.name: p.read_bytes() for p in snapshot.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}
    return done.json


@pytest.mark.parametrize("tracker_goes", [False, True], ids=["coordinator stays", "coordinator is gone"])
def test_the_only_peer_is_stopped_and_the_mirror_is_asked(
    nodes: Nodes, model: Path, endpoint: str, tracker_goes: bool
) -> None:
    boss = nodes.start("coordinator", "coordinator", "--listen", "127.0.0.4:0", "--json", "-q")
    url = str(boss.ready()["url"])
    nodes.ok("builder", "seed", model, "--as", REPO, "--once", "--coordinator", url)
    where = ("--coordinator", url, "--endpoint", endpoint)
    holder = nodes.fetch("holder", REPO, *where, "--seed-time", "600", address="127.0.0.12")
    holder.ready()
    limit = ("--download-limit", str(RATE))
    fetch = nodes.fetch("peer", REPO, *where, *limit, address="127.0.0.11", **QUICK)
    stop_midway(holder, fetch)
    if tracker_goes:
        boss.stop(signal.SIGKILL)
    assert check(model, fetch)["from_mirrors"]


def test_all_peers_are_stopped(nodes: Nodes, model: Path, endpoint: str) -> None:
    url = coordinator(nodes)
    seeder = nodes.seed(model, "--as", REPO, "--coordinator", url, "--upload-limit", str(RATE))
    seeder.ready()
    where = (REPO, "--coordinator", url, "--endpoint", endpoint)
    others = [nodes.fetch(f"peer{n}", *where, address=f"127.0.0.1{n}") for n in (2, 3)]
    fetch = nodes.fetch("peer1", *where, address="127.0.0.11", **QUICK)
    stop_midway(seeder, fetch)
    for other in others:
        other.process.send_signal(signal.SIGSTOP)
    assert check(model, fetch)["from_mirrors"]
