"""Nodes with several engines in real processes: each is one node to the others, with any number of engines."""

import json
import random
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PATIENCE, Nodes, eventually

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
SIZE = 18_000_000
NO_MIRROR = "http://127.0.0.9:9"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number, share in enumerate((0.5, 0.3, 0.2)):
        (source / f"{number}.safetensors").write_bytes(random.Random(number).randbytes(int(SIZE * share)))
    return source


def engines(count: int) -> dict[str, str]:
    return {"P2PMODEL_SWARM_ENGINES": str(count)}


def catalogued(coordinator: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{coordinator}/catalog", timeout=PATIENCE) as answer:
        (torrent,) = json.load(answer)["torrents"]
    return dict(torrent)


def check_same(model: Path, snapshot: Path) -> None:
    assert {p.name: p.read_bytes() for p in snapshot.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}


@pytest.mark.parametrize(("seeding", "fetching"), [(2, 1), (4, 2), (1, 4), (2, 3)])
def test_nodes_with_different_numbers_of_engines_exchange(
    nodes: Nodes, model: Path, seeding: int, fetching: int
) -> None:
    ready = nodes.seed(model, "--as", REPO, **engines(seeding)).ready()
    where = (REPO, "--coordinator", ready["coordinator"], "--endpoint", NO_MIRROR, "--seed-time", "600")
    first = nodes.fetch("peer1", *where, address="127.0.0.11", **engines(fetching))
    second = nodes.fetch("peer2", *where, address="127.0.0.12", **engines(seeding))
    for peer in (first, second):
        done = peer.ready()
        assert done["from_peers"] == SIZE
        check_same(model, Path(done["path"]))

    def counts() -> tuple[int, int]:
        found = catalogued(ready["coordinator"])
        return found["seeders"], found["leechers"]

    # Of a node the coordinator sees all engines, and counts one.
    eventually(lambda: counts() == (3, 0), PATIENCE, lambda: str(counts()))


def test_when_the_seeder_dies_peers_with_several_engines_finish_from_each_other_and_a_mirror(
    nodes: Nodes, model: Path
) -> None:
    nodes.ok("mirror", "import", model, REPO)
    endpoint, _ = nodes.mirror("--max-bytes-per-second", "4000000")
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", 4_000_000, **engines(4))
    where = (REPO, "--coordinator", seeder.ready()["coordinator"], "--endpoint", endpoint)
    env = {"P2PMODEL_SWARM_PEER_TIMEOUT": "1"}
    counts = (2, 4)
    peers = [nodes.fetch(f"peer{n}", *where, address=f"127.0.0.1{n}", **env, **engines(n)) for n in counts]

    def done() -> list[int]:
        reports = [peer.progress() for peer in peers]
        return [report["done"] if report.get("phase") == "downloading" else 0 for report in reports]

    eventually(lambda: max(done()) >= 0.3 * SIZE, PATIENCE, lambda: str(done()))
    seeder.stop(signal.SIGKILL)
    for peer in peers:
        finished = peer.wait()
        assert finished.code == 0, finished.err
        check_same(model, Path(finished.json["path"]))


def test_a_node_that_was_killed_resumes_with_another_number_of_engines(nodes: Nodes, model: Path) -> None:
    ready = nodes.seed(model, "--as", REPO, **engines(4)).ready()
    where = (REPO, "--coordinator", ready["coordinator"], "--endpoint", NO_MIRROR)
    peer = nodes.fetch("peer1", *where, "--download-limit", "4000000", **engines(2))
    eventually(lambda: peer.progress().get("done", 0) >= 0.4 * SIZE, PATIENCE)
    peer.stop(signal.SIGKILL)
    done = nodes.fetch("peer1", *where, **engines(3)).wait()
    assert done.code == 0, done.err
    assert done.json["from_cache"] > 0
    assert done.json["from_cache"] + done.json["from_peers"] == SIZE
    check_same(model, Path(done.json["path"]))


def test_the_engines_of_a_node_keep_its_limits_together(nodes: Nodes, model: Path) -> None:
    limit = 4_000_000
    ready = nodes.seed(model, "--as", REPO, "--upload-limit", limit, **engines(4)).ready()
    where = (REPO, "--coordinator", ready["coordinator"], "--endpoint", NO_MIRROR)
    began = time.monotonic()
    done = nodes.fetch("peer1", *where, **engines(4)).wait()
    assert done.code == 0, done.err
    # At the start a limit lets one second's bytes pass at once.
    assert time.monotonic() - began >= SIZE / limit - 1.5
