"""Zones in real processes: what only other zones have is pulled once for a zone, and spreads inside."""

import random
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.support.processes import PATIENCE, Nodes, Running, eventually

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


def lists_peers(seed: dict[str, Any]) -> bool:
    """Whether the tracker lists peers to a node with leases: it lists no sources."""
    fields = {"info_hash": bytes.fromhex(seed["info_hash"])[:20], "peer_id": bytes(20), "port": 9, "compact": 1}
    fields |= {"uploaded": 0, "downloaded": 0, "left": 1, "role": "leaseholder", "zone": "c"}
    answers = []
    for event in ("started", "stopped"):
        with urlopen(f"{seed['coordinator']}/announce?{urlencode(fields | {'event': event})}") as answer:
            answers.append(answer.read())
    assert b"5:peers" in answers[0]
    return b"5:peers0:" not in answers[0]


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
    """A command that is complete, and seeds, is connected to it in the swarm, so nothing is scarce, and nothing crosses
    under leases: two nodes take 1.0 to 1.7 copies."""
    seed = nodes.seed(source, "--as", REPO, "--zone", "a").ready()
    fetch(nodes, seed["coordinator"], 1, "b").ready()
    late = [fetch(nodes, seed["coordinator"], number, "c") for number in (2, 3)]
    inwards = [each.ready()["from_other_zones"] for each in late]
    assert sum(inwards) <= 1.8 * seed["size"]


def test_a_late_zone_takes_one_copy_where_daemons_have_it(nodes: Nodes, source: Path) -> None:
    """A complete daemon is a source over HTTP from its next look on."""
    seed = nodes.seed(source, "--as", REPO, "--zone", "a").ready()
    where = ("--coordinator", seed["coordinator"], "--endpoint", "http://127.0.0.1:9", "--swarm-listen", "127.0.0.11:0")
    daemon = nodes.start("peer1", "daemon", *where, "--zone", "b", "--json")
    daemon.ready()
    nodes.ok("peer1", "fetch", REPO)
    assert lists_peers(seed)
    eventually(lambda: not lists_peers(seed), PATIENCE)
    late = [fetch(nodes, seed["coordinator"], number, "c") for number in (2, 3)]
    inwards = [each.ready()["from_other_zones"] for each in late]
    assert sum(inwards) <= 1.3 * seed["size"]


def test_a_daemon_serves_all_its_transfers_at_one_port(nodes: Nodes, source: Path) -> None:
    coordinators = []
    for number, repo in enumerate((REPO, "org/other")):
        seed = nodes.seed(source, "--as", repo, "--zone", "a", node=repo, address=f"127.0.0.{30 + number}").ready()
        coordinators += ["--coordinator", seed["coordinator"]]
    free_here = coordinators[1].rpartition(":")[2]
    where = ("--endpoint", "http://127.0.0.1:9", "--swarm-listen", "127.0.0.11:0")
    zone = ("--zone", "b", "--json")
    daemon = nodes.start("peer1", "daemon", *coordinators, *where, *zone, P2PMODEL_SWARM_PIECE_PORT=free_here)
    daemon.ready()
    for repo in (REPO, "org/other"):
        nodes.ok("peer1", "fetch", repo)
    assert "no pieces are served" not in daemon.stop().err


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
