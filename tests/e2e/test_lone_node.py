"""A node that is alone with a seeder, in real processes: the engine downloads over HTTP, until others come."""

import random
import signal
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, Nodes, Running, eventually, token_file

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
FILES = {"0.safetensors": 12_000_000, "a name.safetensors": 7_000_000, "sub/2.safetensors": 5_000_000}
SIZE = sum(FILES.values())
NOWHERE = "http://127.0.0.9:9"
RATE = 4_000_000
SLOW = 1_500_000
"""Bytes a second for which a download lasts longer than the start of another node."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for name, size in FILES.items():
        (source / name).write_bytes(random.Random(name).randbytes(size))
    return source


def seed(nodes: Nodes, model: Path, *options: str) -> Running:
    where = ("--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0")
    return nodes.start("seeder", "seed", model, "--as", REPO, *where, "--json", "--progress", "json", *options)


def check(model: Path, peer: Running) -> dict[str, object]:
    """It has ended well, with the right bytes; its result."""
    done = peer.ready()
    snapshot = Path(str(done["path"]))
    names = [path.relative_to(model) for path in model.rglob("*") if path.is_file()]
    assert all((snapshot / name).read_bytes() == (model / name).read_bytes() for name in names)
    return dict(done)


def test_it_gets_every_byte_over_http_by_its_engine(nodes: Nodes, model: Path) -> None:
    url = str(seed(nodes, model).ready()["coordinator"])
    peer = nodes.fetch("peer", REPO, "--coordinator", url, "--endpoint", NOWHERE, address="127.0.0.11")
    done = check(model, peer)
    assert done["from_peers"] == SIZE
    last = peer.progress()
    assert last["from_seeders"] == last["done"] > SIZE / 2, "nothing came over a connection in the swarm"


def test_a_second_node_ends_that_and_both_take_little_more_than_a_copy(nodes: Nodes, model: Path) -> None:
    seeder = seed(nodes, model, "--upload-limit", str(SLOW))
    where = (REPO, "--coordinator", str(seeder.ready()["coordinator"]), "--endpoint", NOWHERE, "--seed-time", "60")
    first = nodes.fetch("first", *where, address="127.0.0.11")
    eventually(lambda: first.progress().get("done", 0) > SIZE / 6, PATIENCE, lambda: str(first.progress()))
    second = nodes.fetch("second", *where, address="127.0.0.12")
    for peer in (first, second):
        assert check(model, peer)["from_peers"] == SIZE
    # The second one gets pieces of the seeder, too, and the first one sends it what it had.
    assert SIZE / 20 < second.progress()["from_seeders"] < SIZE
    assert first.progress()["from_seeders"] < SIZE
    eventually(lambda: seeder.progress().get("uploaded", 0) >= SIZE, PATIENCE, lambda: str(seeder.progress()))
    for running in (first, second, seeder):
        running.stop()
    assert seeder.progress()["uploaded"] < 1.3 * SIZE


def test_a_download_limit_holds(nodes: Nodes, model: Path) -> None:
    """The engine's own HTTP client reads in bursts below a limit, so the swarm is joined instead."""
    url = str(seed(nodes, model).ready()["coordinator"])
    where = (REPO, "--coordinator", url, "--endpoint", NOWHERE, "--download-limit", str(RATE))
    done = check(model, nodes.fetch("peer", *where, address="127.0.0.11"))
    assert float(str(done["download_seconds"])) > 0.9 * SIZE / RATE


WHOLE = {"model-1.safetensors": 90_000_000, "model-2.safetensors": 70_000_000, "config.json": 20}
"""Files that are large enough to be downloaded whole."""
WHOLE_SIZE = sum(WHOLE.values())


@pytest.fixture
def large_model(tmp_path: Path) -> Path:
    source = tmp_path / "large"
    source.mkdir()
    for name, size in WHOLE.items():
        (source / name).write_bytes(random.Random(name).randbytes(size))
    return source


def test_large_files_come_whole(nodes: Nodes, large_model: Path) -> None:
    seeder = seed(nodes, large_model)
    url = str(seeder.ready()["coordinator"])
    peer = nodes.fetch("peer", REPO, "--coordinator", url, "--endpoint", NOWHERE, address="127.0.0.11")
    assert check(large_model, peer)["from_peers"] == WHOLE_SIZE
    last = peer.progress()
    assert last["from_seeders"] == last["done"] > WHOLE_SIZE / 2
    eventually(lambda: seeder.progress().get("uploaded", 0) >= WHOLE_SIZE, PATIENCE, lambda: str(seeder.progress()))
    assert seeder.progress()["uploaded"] == WHOLE_SIZE


def test_killed_in_the_midst_of_large_files_it_asks_for_the_rest(nodes: Nodes, large_model: Path) -> None:
    seeder = seed(nodes, large_model, "--upload-limit", "40000000")
    where = (REPO, "--coordinator", str(seeder.ready()["coordinator"]), "--endpoint", NOWHERE)
    peer = nodes.fetch("peer", *where, address="127.0.0.11")
    eventually(lambda: peer.progress().get("done", 0) > WHOLE_SIZE / 3, PATIENCE, lambda: str(peer.progress()))
    peer.stop(signal.SIGKILL)
    peer = nodes.fetch("peer", *where, address="127.0.0.11")
    done = check(large_model, peer)
    assert done["from_cache"] > WHOLE_SIZE / 4, "what it had came again"
    assert done["from_cache"] + done["from_peers"] == WHOLE_SIZE


def test_a_node_that_comes_while_large_files_arrive_gets_pieces_of_them(nodes: Nodes, large_model: Path) -> None:
    seeder = seed(nodes, large_model, "--upload-limit", "12000000")
    where = (REPO, "--coordinator", str(seeder.ready()["coordinator"]), "--endpoint", NOWHERE, "--seed-time", "60")
    first = nodes.fetch("first", *where, address="127.0.0.11")
    eventually(lambda: first.progress().get("done", 0) > WHOLE_SIZE / 6, PATIENCE, lambda: str(first.progress()))
    second = nodes.fetch("second", *where, address="127.0.0.12")
    for peer in (first, second):
        assert check(large_model, peer)["from_peers"] == WHOLE_SIZE
    assert WHOLE_SIZE / 20 < second.progress()["from_seeders"] < WHOLE_SIZE
    for running in (first, second, seeder):
        running.stop()
    assert seeder.progress()["uploaded"] < 1.3 * WHOLE_SIZE


def test_large_files_come_whole_over_https(nodes: Nodes, large_model: Path, tmp_path: Path) -> None:
    ca, token = tmp_path / "ca", token_file(tmp_path / "token")
    nodes.ok("admin", "ca", "init", "--folder", ca, "-q")
    nodes.ok("admin", "ca", "issue", "127.0.0.3", "--folder", ca, "-q")
    tls = ("--tls-cert", ca / "127.0.0.3.crt", "--tls-key", ca / "127.0.0.3.key")
    trust = {"P2PMODEL_COORDINATOR_CA_FILE": str(ca / "ca.crt"), "P2PMODEL_COORDINATOR_TOKEN_FILE": str(token)}
    url = str(nodes.seed(large_model, "--as", REPO, "--token-file", token, *tls, **trust).ready()["coordinator"])
    assert url.startswith("https:")
    peer = nodes.fetch("peer", REPO, "--coordinator", url, "--endpoint", NOWHERE, **trust)
    assert check(large_model, peer)["from_peers"] == WHOLE_SIZE
    last = peer.progress()
    assert last["from_seeders"] == last["done"] > WHOLE_SIZE / 2


def test_large_files_come_whole_in_a_private_swarm(nodes: Nodes, large_model: Path, tmp_path: Path) -> None:
    token, config = token_file(tmp_path / "token"), tmp_path / "seeder.toml"
    made = nodes.ok("seeder", "ca", "init", "--folder", tmp_path / "ca", "--json").json
    config.write_text(f'[private]\nrepos = ["org/*"]\nca_file = "{made["certificate"]}"\nca_key = "{made["key"]}"\n')
    config.chmod(0o600)
    seeder = nodes.seed(large_model, "--as", REPO, "--token-file", token, "--config", config)
    url = str(seeder.ready()["coordinator"])
    member = {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(token), "P2PMODEL_PUBLISH_TOKEN_FILE": ""}
    peer = nodes.fetch("peer", REPO, "--coordinator", url, "--endpoint", NOWHERE, **member)
    assert check(large_model, peer)["from_peers"] == WHOLE_SIZE
    last = peer.progress()
    assert last["from_seeders"] == last["done"] > WHOLE_SIZE / 2
