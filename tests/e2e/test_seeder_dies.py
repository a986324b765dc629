"""The seeder is killed midway: the peers finish from each other and a mirror, or end in time and can resume."""

import logging
import random
import signal
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, Nodes, Running, eventually, served

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
SIZE = 18_000_000
PEERS = (1, 2, 3)
LOG = logging.getLogger(__name__)  # shown when a test fails


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number, share in enumerate((0.5, 0.3, 0.2)):
        content = random.Random(number).randbytes(int(SIZE * share))
        (source / f"{number}.safetensors").write_bytes(content)
    return source


def start(nodes: Nodes, coordinator: str, endpoint: str, **env: str) -> list[Running]:
    where = (REPO, "--coordinator", coordinator, "--endpoint", endpoint)
    with nodes.together(len(PEERS)):
        return [nodes.fetch(f"peer{n}", *where, address=f"127.0.0.1{n}", **env) for n in PEERS]


def kill_midway(seeder: Running, peers: list[Running]) -> list[int]:
    """Kill the seeder when all peers have something and one has 40 %, and return how many bytes each has."""

    def done() -> list[int]:
        reports = [peer.progress() for peer in peers]
        return [report["done"] if report.get("phase") == "downloading" else 0 for report in reports]

    eventually(lambda: min(done()) > 0 and max(done()) >= 0.4 * SIZE, PATIENCE, lambda: str(done()))
    seeder.stop(signal.SIGKILL)
    return done()


def check_same(model: Path, snapshot: Path) -> None:
    assert {p.name: p.read_bytes() for p in snapshot.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}


def test_three_peers_finish_with_one_copy_of_the_missing_part_from_a_mirror(nodes: Nodes, model: Path):
    nodes.ok("mirror", "import", model, REPO)
    # As slow as a link that is worth saving.
    endpoint, log = nodes.mirror("--max-bytes-per-second", "4000000")
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", 4_000_000)
    peers = start(nodes, seeder.ready()["coordinator"], endpoint, P2PMODEL_SWARM_PEER_TIMEOUT="1")
    had = kill_midway(seeder, peers)
    for peer in peers:
        done = peer.wait()
        assert done.code == 0, done.err
        check_same(model, Path(done.json["path"]))
    missing = SIZE - max(had)
    from_mirror = sum(entry["bytes"] for entry in served(log) if "/resolve/" in entry["path"])
    LOG.warning("%d bytes were missing, the mirror sent %.2f copies of them", missing, from_mirror / missing)
    # Beyond one copy: what peers that helped each other at the end pulled at once.
    assert from_mirror <= 1.15 * missing


def test_without_a_mirror_they_end_in_time_and_a_later_seeder_lets_them_resume(nodes: Nodes, model: Path):
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", 4_000_000, address="127.0.0.45")
    coordinator = seeder.ready()["coordinator"]
    command = (coordinator, "http://127.0.0.9:9")
    bounds = {
        "P2PMODEL_SWARM_PEER_TIMEOUT": "1",
        "P2PMODEL_SWARM_STALL_TIMEOUT": "3",
        "P2PMODEL_ORIGIN_PATIENCE": "1",
    }
    peers = start(nodes, *command, **bounds)
    had = kill_midway(seeder, peers)
    for peer in peers:
        done = peer.wait()
        assert done.code == 6, done.err
        assert done.out == ""
        (line,) = [line for line in done.err.splitlines() if line.startswith("p2pmodel: ")]
        assert "pieces of org/model: waited for " in line
        assert "peers" in line
        assert "127.0.0.9:9: connection refused" in line
        assert line.endswith("run the same command: it resumes")
    again = ("--listen", coordinator.removeprefix("http://"), "--swarm-listen", "127.0.0.45:0", "--json", "-q")
    nodes.start("seeder", "seed", model, "--as", REPO, *again).ready()
    for peer, before in zip(start(nodes, *command, **bounds), had, strict=True):
        done = peer.wait()
        assert done.code == 0, done.err
        assert done.json["from_cache"] >= before
        assert done.json["from_cache"] + done.json["from_peers"] == SIZE
        check_same(model, Path(done.json["path"]))
