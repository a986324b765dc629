"""Zones in real processes: what only other zones have is pulled once for a zone, and spreads inside."""

import random
from pathlib import Path

import pytest

from tests.support.processes import Nodes, Running

REPO = "org/model"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(4):
        (folder / f"weights-{number}.safetensors").write_bytes(random.Random(number).randbytes(2_000_000))
    return folder


def fetch(nodes: Nodes, coordinator: str, number: int, zone: str, **env: str) -> Running:
    options = ("--coordinator", coordinator, "--zone", zone, "--seed-time", "60")
    return nodes.fetch(f"peer{number}", REPO, *options, address=f"127.0.0.{10 + number}", HF_HUB_OFFLINE="1", **env)


def test_a_zone_takes_one_copy_over_all_its_nodes(nodes: Nodes, source: Path) -> None:
    seed = nodes.seed(source, "--as", REPO, "--zone", "a", "--upload-limit", "1MB").ready()
    size = seed["size"]
    running = {n: fetch(nodes, seed["coordinator"], n, "b" if n % 2 else "c") for n in range(1, 7)}
    done = {number: each.ready() for number, each in running.items()}
    for zone in (0, 1):
        inwards = [done[number]["from_other_zones"] for number in done if number % 2 == zone]
        # What a connection brings after the last look at it is not counted; a piece may be pulled twice near the end.
        assert sum(inwards) <= 1.3 * size


def test_a_late_zone_takes_less_than_a_copy_for_each_node(nodes: Nodes, source: Path) -> None:
    """A complete node of another zone is connected to it in the swarm, so nothing is scarce, and nothing crosses under
    leases: two nodes take 1.0 to 1.6 copies."""
    seed = nodes.seed(source, "--as", REPO, "--zone", "a").ready()
    fetch(nodes, seed["coordinator"], 1, "b").ready()
    late = [fetch(nodes, seed["coordinator"], number, "c") for number in (2, 3)]
    inwards = [each.ready()["from_other_zones"] for each in late]
    assert sum(inwards) <= 1.8 * seed["size"]


def test_a_zone_without_a_port_for_others_takes_what_it_needs_through_its_gateways(nodes: Nodes, source: Path) -> None:
    seed = nodes.seed(source, "--as", REPO, "--zone", "a").ready()
    taken = seed["coordinator"].rpartition(":")[2]
    for number in (1, 2):
        # Its port for other zones is not free: the coordinator's port is taken at its own address, too.
        nodes.program(f"peer{number}", "python3", "-c", _LISTENER, f"127.0.0.{10 + number}", taken).ready()
    gateways = [
        fetch(nodes, seed["coordinator"], number, "b", P2PMODEL_SWARM_PIECE_PORT=taken).ready() for number in (1, 2)
    ]
    assert 0 < sum(done["from_other_zones"] for done in gateways) <= 2.1 * seed["size"]
    for number in (3, 4):
        done = fetch(nodes, seed["coordinator"], number, "b").ready()
        assert (done["from_peers"], done["from_other_zones"]) == (seed["size"], 0)


_LISTENER = (
    "import socket, sys, time; s = socket.create_server((sys.argv[1], int(sys.argv[2])));"
    " print('{}', flush=True); time.sleep(600)"
)
