"""Leases in real processes: four peers at once take about one copy from the seeder, or from a mirror."""

import logging
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PATIENCE, Nodes, Running, eventually, served

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
SIZE = 20_000_000
PEERS = (1, 2, 3, 4)
NOWHERE = "http://127.0.0.9:9"
RATE = 4_000_000
"""Bytes a second of the scarce source: a link that is worth saving."""
LOG = logging.getLogger(__name__)  # shown when a test fails


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number, share in enumerate((0.5, 0.3, 0.2)):
        content = random.Random(number).randbytes(int(SIZE * share))
        (source / f"{number}.safetensors").write_bytes(content)
    return source


def coordinator(nodes: Nodes) -> tuple[Running, str]:
    running = nodes.start("coordinator", "coordinator", "--listen", "127.0.0.4:0", "--json", "-q")
    return running, str(running.ready()["url"])


def seed(nodes: Nodes, model: Path, *options: str) -> Running:
    where = ("--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0")
    limit = ("--upload-limit", str(RATE))
    return nodes.start("seeder", "seed", model, "--as", REPO, *where, *limit, "--json", "--progress", "json", *options)


MOST_COPIES = 1.5
"""Quiet machines send 1.00. A peer that is a second before the others on a slow machine counts as alone meanwhile, and
downloads some pieces that others download, too."""


def fetch_all(nodes: Nodes, coordinator: str, endpoint: str = NOWHERE) -> list[Running]:
    where = (REPO, "--coordinator", coordinator, "--endpoint", endpoint, "--seed-time", "60")
    with nodes.together(len(PEERS)):
        return [nodes.fetch(f"peer{n}", *where, address=f"127.0.0.1{n}") for n in PEERS]


def check(model: Path, peers: list[Running]) -> list[dict[str, object]]:
    """All have ended well, with the right bytes; their results."""
    ready = [peer.ready() for peer in peers]
    for done in ready:
        snapshot = Path(str(done["path"]))
        assert {p.name: p.read_bytes() for p in snapshot.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}
    return ready


def test_a_seeder_sends_about_one_copy_to_four_peers(nodes: Nodes, model: Path) -> None:
    seeder = seed(nodes, model)
    url, began = str(seeder.ready()["coordinator"]), time.monotonic()
    peers = fetch_all(nodes, url)
    for done in check(model, peers):
        assert done["from_peers"] == SIZE
    # Not of each peer: one that starts later needs less, since others have something by then.
    assert time.monotonic() - began > 0.9 * SIZE / RATE, "the seeder's limit holds for leaseholders"
    # What leaseholders pulled over HTTP, and what went out in the swarm.
    eventually(lambda: seeder.progress().get("uploaded", 0) >= SIZE, PATIENCE, lambda: str(seeder.progress()))
    for running in (*peers, seeder):
        running.stop()
    copies = seeder.progress()["uploaded"] / SIZE
    LOG.warning("the seeder sent %.3f copies", copies)
    assert copies <= MOST_COPIES


def test_a_limit_holds_for_http_and_the_swarm_together(nodes: Nodes, model: Path) -> None:
    _, url = coordinator(nodes)
    seed(nodes, model, "--coordinator", url).ready()
    limit = RATE // 2
    where = (REPO, "--coordinator", url, "--endpoint", NOWHERE, "--seed-time", "60", "--download-limit", str(limit))
    peers = [nodes.fetch(f"peer{n}", *where, address=f"127.0.0.1{n}") for n in PEERS[:2]]
    for peer, done in zip(peers, check(model, peers), strict=True):
        seconds = float(str(done["download_seconds"]))
        LOG.warning("%.0f bytes a second, %s from the seeder", SIZE / seconds, peer.progress()["from_seeders"])
        assert seconds > 0.9 * SIZE / limit
        assert 0 < peer.progress()["from_seeders"] < SIZE, "some came either way"


def test_a_complete_daemon_is_the_source_of_later_nodes(nodes: Nodes, model: Path) -> None:
    _, url = coordinator(nodes)
    first = seed(nodes, model, "--coordinator", url)
    first.ready()
    where = ("--coordinator", url, "--endpoint", NOWHERE, "--swarm-listen", "127.0.0.20:0", "--json")
    holder = nodes.start("holder", "daemon", *where, "--upload-limit", str(RATE))
    holder.ready()
    nodes.ok("holder", "fetch", REPO)
    first.stop()

    def transfer() -> dict[str, Any]:
        [view] = nodes.ok("holder", "status", "--json").json["transfers"]
        return dict(view)

    eventually(lambda: any("published" in note for note in transfer()["notes"]), 2 * PATIENCE, lambda: str(transfer()))
    for done in check(model, fetch_all(nodes, url)):
        assert done["from_peers"] == SIZE
    eventually(lambda: transfer()["progress"]["uploaded"] >= SIZE, PATIENCE, lambda: str(transfer()))
    copies = transfer()["progress"]["uploaded"] / SIZE
    LOG.warning("the daemon sent %.3f copies", copies)
    assert copies <= MOST_COPIES


def test_when_the_coordinator_is_killed_midway_all_finish(nodes: Nodes, model: Path) -> None:
    boss, url = coordinator(nodes)
    seeder = seed(nodes, model, "--coordinator", url)
    seeder.ready()
    peers = fetch_all(nodes, url)

    def are_midway() -> bool:
        done = [peer.progress().get("done", 0) for peer in peers]
        return min(done) > 0 and max(done) > 0.2 * SIZE

    eventually(are_midway, PATIENCE, lambda: str(peers))  # a peer that is later finds no torrent
    boss.stop(signal.SIGKILL)
    assert min(peer.progress().get("done", 0) for peer in peers) < SIZE
    for done in check(model, peers):
        assert done["from_peers"] == SIZE


def test_a_cold_swarm_takes_about_one_copy_from_the_mirror(nodes: Nodes, model: Path) -> None:
    nodes.ok("mirror", "import", model, REPO)
    endpoint, log = nodes.mirror("--max-bytes-per-second", str(RATE))
    _, url = coordinator(nodes)
    nodes.ok("builder", "seed", model, "--as", REPO, "--once", "--coordinator", url)
    ready = check(model, fetch_all(nodes, url, endpoint))
    from_mirror = sum(entry["bytes"] for entry in served(log) if "/resolve/" in entry["path"])
    LOG.warning("the mirror sent %.3f copies", from_mirror / SIZE)
    assert from_mirror <= 1.15 * SIZE
    assert sum(int(str(done["from_mirrors"])) for done in ready) <= from_mirror
