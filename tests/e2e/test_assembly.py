"""A cold cluster in real processes: no node has the snapshot, and about one copy of it leaves the mirror."""

import json
import random
import signal
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from p2pmodel.node.assembly.membership import FIRST_BYTES, LOST_FOR
from p2pmodel.swarm.torrents import parse
from tests.support.dice import dice
from tests.support.processes import PATIENCE, Finished, Nodes, Running, eventually, served

__all__ = ["dice"]

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
LONGEST = 3 * PATIENCE
"""More than the stall_timeout of 120 s, after which a node that is granted no piece continues with the mirrors."""
SIZE = 24_000_000
NODES = (1, 2, 3, 4)
STAY = ("--seed-time", "600")
"""For nodes that others may need: a slow machine starts a process when the rest of the nodes is complete."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "empty.txt").touch()
    for number, share in enumerate((0.5, 0.3, 0.2)):
        content = random.Random(number).randbytes(int(SIZE * share))
        (source / f"{number}.safetensors").write_bytes(content)
    return source


class Cluster:
    """A slow mirror, a coordinator without a torrent, and nodes that fetch."""

    def __init__(self, nodes: Nodes, model: Path, *faults: str, rate: int = 4_000_000, budget: float = 1.05) -> None:
        self.nodes = nodes
        self.budget = budget
        self.model = model
        if faults:
            self.endpoint, self.log = nodes.hub(model, *faults)
        else:
            nodes.ok("mirror", "import", model, REPO)
            self.endpoint, self.log = nodes.mirror("--max-bytes-per-second", str(rate))
        self.coordinator = self.start_coordinator()
        self.url = self.coordinator.ready()["url"]

    def start_coordinator(self, listen: str = "127.0.0.46:0") -> Running:
        return self.nodes.start(
            "coordinator", "coordinator", "--listen", listen, "--origin-budget", str(self.budget), "--json", "-q"
        )

    def fetch(self, number: int, *options: str, **env: str) -> Running:
        where = ("--coordinator", self.url, "--endpoint", self.endpoint, *options)
        return self.nodes.fetch(f"peer{number}", REPO, *where, address=f"127.0.0.1{number}", **env)

    def fetch_all(self, *options: str, numbers: Sequence[int] = NODES) -> list[Running]:
        """Nodes that begin at the same moment."""
        with self.nodes.together(len(numbers)):
            return [self.fetch(number, *options) for number in numbers]

    def info_hash(self) -> str:
        torrent = self.nodes.root / "made.torrent"
        self.nodes.ok("mirror", "torrent", "create", REPO, "-o", torrent)
        return parse(torrent.read_bytes()).info_hash

    def copies(self) -> float:
        """How often the snapshot left the mirror."""
        return sum(entry["bytes"] for entry in served(self.log) if "/resolve/" in entry["path"]) / SIZE

    def torrents(self) -> int:
        """How many the coordinator has."""
        with urllib.request.urlopen(f"{self.url}/catalog", timeout=PATIENCE) as answer:
            return len(json.load(answer)["torrents"])

    def check(self, snapshot: str) -> None:
        expected = {p.name: p.read_bytes() for p in self.model.iterdir()}
        assert {p.name: p.read_bytes() for p in Path(snapshot).iterdir()} == expected


def completed(peers: list[Running]) -> list[Finished]:
    """Wait until all nodes are complete, and stop those that seed."""
    for peer in peers:
        peer.ready(LONGEST)
    return [peer.stop() for peer in peers]


def notes(done: Finished) -> list[str]:
    """Its notes about downloading from the mirrors alone."""
    return [line for line in done.err.splitlines() if "mirrors alone" in line]


def when(share: float, peers: list[Running]) -> list[int]:
    """Wait until the nodes have pulled `share` of the snapshot together, each a part; what each has pulled."""

    def pulled() -> list[int]:
        return [peer.progress().get("from_mirrors", 0) for peer in peers]

    eventually(lambda: min(pulled()) > 0 and sum(pulled()) >= share * SIZE, PATIENCE, lambda: str(pulled()))
    return pulled()


def comes_to(size: float, peer: Running) -> bool:
    """Wait until the node has pulled `size` bytes; False when it is complete before."""

    def pulled() -> int:
        return int(peer.progress().get("from_mirrors", 0))

    eventually(lambda: bool(peer.out) or pulled() >= size, LONGEST, lambda: str(pulled()))
    return not peer.out


def most(pulled: list[int]) -> tuple[int, int]:
    """The most that a node has pulled, and which of them that is."""
    return max((count, index) for index, count in enumerate(pulled))


def test_four_nodes_take_one_copy_and_exchange_it(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model)
    done = completed(cluster.fetch_all(*STAY))
    for each in done:
        assert each.code == 0, each.err
        cluster.check(each.json["path"])
        assert each.json["from_mirrors"] + each.json["from_peers"] == each.json["size"]
    pulled = sum(each.json["from_mirrors"] for each in done)
    assert cluster.copies() <= 1.05
    assert pulled <= 1.05 * SIZE
    assert min(each.json["from_mirrors"] for each in done) > 0
    assert cluster.torrents() == 1
    (torrent,) = [
        parse(path.read_bytes()) for path in nodes.root.glob("peer1/hub/models--org--model/.p2pmodel/torrents/*")
    ]
    assert torrent.info_hash == cluster.info_hash()
    assert torrent.trackers == (f"{cluster.url}/announce",)


def test_a_killed_node_loses_only_its_own_work_and_no_bytes_are_pulled_twice(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model, rate=3_000_000)
    peers = cluster.fetch_all(*STAY)
    lost, busiest = most(when(0.5, peers))
    peers[busiest].stop(signal.SIGKILL)
    peers[busiest] = cluster.fetch(NODES[busiest], *STAY)
    all_done = completed(peers)
    for done in all_done:
        assert done.code == 0, done.err
        assert notes(done) == []
        cluster.check(done.json["path"])
    kept = all_done[busiest].json["from_cache"]
    assert kept > 0
    gone = max(0, lost - kept) + FIRST_BYTES  # what was not recorded yet, and what was in flight
    assert cluster.copies() <= 1.1 + gone / SIZE


def test_a_node_killed_repeatedly_finishes_beside_another(nodes: Nodes, model: Path, dice: random.Random) -> None:
    cluster = Cluster(nodes, model, rate=2_000_000)
    peers = cluster.fetch_all(*STAY, numbers=(1, 2))
    kills = 0
    while kills < 4 and comes_to(dice.uniform(0.02, 0.08) * SIZE, peers[1]):  # in all less than one copy
        peers[1].stop(signal.SIGKILL)
        peers[1] = cluster.fetch(2, *STAY)
        kills += 1
    assert kills > 0
    for done in completed(peers):
        assert done.code == 0, done.err
        cluster.check(done.json["path"])
    assert cluster.copies() <= 1.7  # 1.05-1.21 measured, 1.47 beside other work: the bytes in flight at each kill


def test_the_others_pull_the_pieces_of_a_killed_node(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model)
    peers = cluster.fetch_all(*STAY)
    lost, busiest = most(when(0.5, peers))
    peers.pop(busiest).stop(signal.SIGKILL)
    for done in completed(peers):
        assert done.code == 0, done.err
        cluster.check(done.json["path"])
    assert cluster.copies() <= 1.1 + (lost + FIRST_BYTES) / SIZE  # its bytes in flight are lost, too


def test_when_the_coordinator_dies_each_node_continues_with_its_pieces(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model, rate=6_000_000)
    peers = cluster.fetch_all()
    when(0.4, peers)
    cluster.coordinator.stop(signal.SIGKILL)
    for peer in peers:
        done = peer.wait()
        assert done.code == 0, done.err
        (note,) = notes(done)
        assert "the coordinator is gone: downloading from the mirrors alone" in note
        assert done.json["from_mirrors"] + done.json["from_peers"] == SIZE + 2
        cluster.check(done.json["path"])
    assert cluster.copies() <= len(NODES) * 1.05


def test_assembly_continues_after_a_coordinator_restart(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model, rate=3_000_000)
    peers = cluster.fetch_all(*STAY)
    when(0.4, peers)
    cluster.coordinator.stop(signal.SIGKILL)
    killed = time.monotonic()
    cluster.start_coordinator(cluster.url.removeprefix("http://")).ready()
    in_time = time.monotonic() - killed < LOST_FOR / 2
    for done in completed(peers):
        assert done.code == 0, done.err
        assert notes(done) == [] or not in_time
        cluster.check(done.json["path"])
    assert cluster.copies() <= 1.1 or not in_time


def test_one_corrupt_piece_of_a_mirror_withdraws_the_torrent(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model, "flip@0.safetensors*1", "slow:1000000")
    for done in [peer.wait() for peer in cluster.fetch_all(numbers=NODES[:3])]:
        assert done.code == 0, done.err
        (note,) = notes(done)
        assert "the torrent is dropped; downloading from the mirrors alone" in note
        cluster.check(done.json["path"])
    assert cluster.torrents() == 0


def test_a_late_node_makes_the_first_node_share(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model, rate=3_000_000)
    first = cluster.fetch(1, *STAY)
    when(0.4, [first])
    done = completed([cluster.fetch(2), first])
    for each in done:
        assert each.code == 0, each.err
        cluster.check(each.json["path"])
        assert each.json["from_mirrors"] + each.json["from_peers"] == SIZE + 2
    assert done[0].json["from_peers"] > 0
    assert cluster.copies() <= 1.1


def test_one_node_alone_leaves_a_torrent_behind(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model, rate=50_000_000)
    done = cluster.fetch(1).wait()
    assert done.code == 0, done.err
    assert notes(done) == []
    cluster.check(done.json["path"])
    assert done.json["from_mirrors"] == SIZE + 2
    assert cluster.copies() <= 1.01
    assert cluster.torrents() == 1


def test_a_mirror_without_ranges_is_used_by_each_alone(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model, "norange", "slow:6000000")
    for done in [peer.wait() for peer in cluster.fetch_all(numbers=NODES[:2])]:
        assert done.code == 0, done.err
        (note,) = notes(done)
        assert "it answers a range with the whole file" in note
        cluster.check(done.json["path"])


def test_some_files_are_taken_from_the_mirrors_alone(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model, rate=50_000_000)
    done = cluster.fetch(1, "--include", "*.json").wait()
    assert done.code == 0, done.err
    assert len(notes(done)) == 1
    assert cluster.torrents() == 0
