"""Forty clients with the token lease and never pull, invent numbers, send garbage and flap: honest fetches end."""

import logging
import random
from pathlib import Path
from typing import Any

import pytest

from p2pmodel.coordinator.assembly.messages import assembly_digest, manifest_text
from p2pmodel.swarm.torrents import parse
from tests.support.hostile_leaseholders import hostile_leaseholders
from tests.support.in_thread import in_thread
from tests.support.processes import Nodes, served

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
SIZE = 12_000_000
COUNT = 40
QUICK = {"P2PMODEL_SWARM_PEER_TIMEOUT": "3"}
LOG = logging.getLogger(__name__)  # shown when a test fails


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number, share in enumerate((0.6, 0.4)):
        (source / f"{number}.safetensors").write_bytes(random.Random(number).randbytes(int(SIZE * share)))
    return source


def token(nodes: Nodes) -> str:
    return nodes.publish_token.read_text().strip()


def fetch_two(nodes: Nodes, model: Path, coordinator: str, endpoint: str) -> list[dict[str, Any]]:
    """Two honest nodes at once; what they report, with the right bytes."""
    where = (REPO, "--coordinator", coordinator, "--endpoint", endpoint)
    peers = [nodes.fetch(f"peer{n}", *where, address=f"127.0.0.1{n}", **QUICK) for n in (1, 2)]
    reports = []
    for peer in peers:
        done = peer.wait()
        assert done.code == 0, done.err
        snapshot = Path(done.json["path"])
        assert {p.name: p.read_bytes() for p in snapshot.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}
        LOG.warning("%s", done.json)
        reports.append(done.json)
    return reports


def test_fetches_end_where_a_seeder_is_healthy(nodes: Nodes, model: Path) -> None:
    nodes.ok("mirror", "import", model, REPO)
    endpoint, log = nodes.mirror()
    seeder = nodes.seed(model, "--as", REPO).ready()
    with in_thread(
        hostile_leaseholders(f"{seeder['coordinator']}/leases/{seeder['info_hash']}", COUNT, token=token(nodes))
    ):
        for done in fetch_two(nodes, model, seeder["coordinator"], endpoint):
            assert done["from_peers"] == SIZE, "a healthy seeder is enough"
    assert not [entry for entry in served(log) if ".safetensors" in entry["path"] and entry["bytes"]]


def test_fetches_end_where_only_the_mirror_has_the_snapshot(nodes: Nodes, model: Path) -> None:
    nodes.ok("mirror", "import", model, REPO)
    endpoint, _ = nodes.mirror()
    coordinator = nodes.start("coordinator", "coordinator", "--listen", "127.0.0.4:0", "--json", "-q").ready()
    made = nodes.ok("builder", "seed", model, "--as", REPO, "--once", "--coordinator", coordinator["url"], "--json")
    with in_thread(
        hostile_leaseholders(f"{coordinator['url']}/leases/{made.json['info_hash']}", COUNT, token=token(nodes))
    ):
        fetch_two(nodes, model, coordinator["url"], endpoint)


def test_a_cold_cluster_assembles(nodes: Nodes, model: Path) -> None:
    nodes.ok("mirror", "import", model, REPO)
    endpoint, _ = nodes.mirror("--max-bytes-per-second", "6000000")
    coordinator = nodes.start("coordinator", "coordinator", "--listen", "127.0.0.4:0", "--json", "-q").ready()
    torrent = nodes.root / "made.torrent"
    nodes.ok("mirror", "torrent", "create", REPO, "-o", torrent)
    manifest = manifest_text(parse(torrent.read_bytes()).manifest)
    url = f"{coordinator['url']}/assemblies/{assembly_digest(manifest)}"
    with in_thread(hostile_leaseholders(url, COUNT, token=token(nodes), manifest=manifest)):
        fetch_two(nodes, model, coordinator["url"], endpoint)
