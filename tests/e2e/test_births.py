"""A cold cluster in real processes: nobody has the snapshot, all want it, and about one copy leaves the mirror."""

import random
from pathlib import Path

import pytest

from p2pmodel.swarm.torrents import parse
from tests.support.processes import Nodes, Running, served

REPO = "org/model"
SIZE = 24_000_000
NODES = (1, 2, 3, 4)


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

    def __init__(self, nodes: Nodes, model: Path, rate: int = 4_000_000) -> None:
        self.nodes = nodes
        self.model = model
        nodes.ok("mirror", "import", model, REPO)
        self.endpoint, self.log = nodes.mirror("--max-bytes-per-second", str(rate))
        self.coordinator = self.start_coordinator()
        self.url = self.coordinator.ready()["url"]

    def start_coordinator(self, listen: str = "127.0.0.3:0") -> Running:
        return self.nodes.start("coordinator", "tracker", "serve", "--listen", listen, "--json", "-q")

    def fetch(self, number: int, *options: str, **env: str) -> Running:
        where = ("--coordinator", self.url, "--endpoint", self.endpoint, *options)
        return self.nodes.fetch(f"peer{number}", REPO, *where, address=f"127.0.0.1{number}", **env)

    def info_hash(self) -> str:
        torrent = self.nodes.root / "made.torrent"
        self.nodes.ok("mirror", "torrent", "create", REPO, "-o", torrent)
        return parse(torrent.read_bytes()).info_hash

    def copies(self) -> float:
        """How often the snapshot left the mirror."""
        return sum(entry["bytes"] for entry in served(self.log) if "/resolve/" in entry["path"]) / SIZE

    def check(self, snapshot: str) -> None:
        expected = {p.name: p.read_bytes() for p in self.model.iterdir()}
        assert {p.name: p.read_bytes() for p in Path(snapshot).iterdir()} == expected


def test_four_nodes_take_one_copy_and_exchange_it(nodes: Nodes, model: Path) -> None:
    cluster = Cluster(nodes, model)
    peers = [cluster.fetch(number) for number in NODES]
    done = [peer.wait() for peer in peers]
    for each in done:
        assert each.code == 0, each.err
        cluster.check(each.json["path"])
        assert each.json["from_mirrors"] + each.json["from_peers"] == each.json["size"]
    pulled = sum(each.json["from_mirrors"] for each in done)
    assert cluster.copies() <= 1.05
    assert pulled <= 1.05 * SIZE
    assert min(each.json["from_mirrors"] for each in done) > 0
    late = cluster.fetch(5).wait()
    assert late.code == 0, late.err
    (torrent,) = [
        parse(path.read_bytes()) for path in nodes.root.glob("peer1/hub/models--org--model/.p2pmodel/torrents/*")
    ]
    assert torrent.info_hash == cluster.info_hash()
    assert torrent.trackers == (f"{cluster.url}/announce",)
