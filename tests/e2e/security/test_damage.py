"""Files that change on the disk under a running daemon or mirror: neither served nor called verified, and repaired."""

import os
import random
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PATIENCE, Nodes, eventually

pytestmark = pytest.mark.main

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
WEIGHTS = "0.safetensors"
PIECE = 128 << 10


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    for number in range(2):
        (source / f"{number}.safetensors").write_bytes(random.Random(number).randbytes(3_000_000))
    return source


@pytest.fixture
def coordinator(nodes: Nodes, model: Path) -> str:
    return str(nodes.seed(model, "--as", REPO).ready()["coordinator"])


def daemon(nodes: Nodes, coordinator: str, **env: str) -> dict[str, Any]:
    where = ("--coordinator", coordinator, "--endpoint", DEAD, "--swarm-listen", "127.0.0.11:0", "--json")
    here = ("--hub-listen", "127.0.0.11:0", "--control-listen", "127.0.0.11:0")
    started = nodes.start("node", "daemon", *where, *here, **env).ready()
    nodes.ok("node", "fetch", REPO)
    seeding(nodes)
    return started


def one(nodes: Nodes) -> dict[str, Any]:
    [view] = nodes.ok("node", "status", "--json").json["transfers"]
    assert isinstance(view, dict)
    return view


def seeding(nodes: Nodes) -> None:
    eventually(lambda: one(nodes)["state"] == "seeding", PATIENCE, lambda: str(one(nodes)))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def snapshot(nodes: Nodes, node: str = "node") -> Path:
    [found] = (nodes.cache(node) / "models--org--model" / "snapshots").iterdir()
    return found


def flip(path: Path) -> None:
    """One bit; size, time and inode stay: a failing disk."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(1_500_000)
        byte = file.read(1)
        file.seek(1_500_000)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def content_at(url: str) -> Any:
    """The body, or the status of a refusal."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        return error.code


def blob(nodes: Nodes, node: str = "node", name: str = WEIGHTS) -> Path:
    return (snapshot(nodes, node) / name).resolve()


def test_a_replaced_file_is_never_reported_as_verified_and_comes_again(
    nodes: Nodes, model: Path, coordinator: str
) -> None:
    where = daemon(nodes, coordinator)
    path = blob(nodes)
    path.unlink()
    path.write_bytes(bytes(3_000_000))
    assert one(nodes)["doubted"] == 1 or path.read_bytes() == (model / WEIGHTS).read_bytes()
    nodes.ok("node", "fetch", REPO)
    assert contents(snapshot(nodes)) == contents(model)
    assert content_at(f"{where['hub']}/{REPO}/resolve/main/{WEIGHTS}") == (model / WEIGHTS).read_bytes()
    seeding(nodes)


def test_what_verify_found_is_not_served_and_is_repaired(nodes: Nodes, model: Path, coordinator: str) -> None:
    where = daemon(nodes, coordinator)
    flip(blob(nodes))
    inode = blob(nodes).stat().st_ino
    found = nodes.run("node", "verify", REPO)
    assert found.code == 5, found.err
    assert f"corrupt: {WEIGHTS}" in found.err
    assert "the daemon repairs it" in found.err
    assert content_at(f"{where['hub']}/{REPO}/resolve/main/{WEIGHTS}") == (model / WEIGHTS).read_bytes()
    nodes.ok("node", "fetch", REPO)
    assert contents(snapshot(nodes)) == contents(model)
    assert blob(nodes).stat().st_ino != inode, "a client may have mapped the old file"
    assert one(nodes)["completion"]["from_peers"] == PIECE, "only the bad piece is downloaded"
    nodes.ok("node", "verify", REPO)


def test_a_mirror_serves_no_damaged_file(nodes: Nodes, model: Path) -> None:
    nodes.ok("mirror", "import", model, REPO)
    endpoint, _ = nodes.mirror()
    url = f"{endpoint}/{REPO}/resolve/main/{WEIGHTS}"
    assert content_at(url) == (model / WEIGHTS).read_bytes()
    flip(blob(nodes, "mirror"))
    assert nodes.run("mirror", "verify", REPO).code == 5
    assert content_at(url) == 503
    assert content_at(f"{endpoint}/{REPO}/resolve/main/config.json") == b"{}"
    (snapshot(nodes, "mirror") / "config.json").resolve().write_text("[]")
    assert content_at(f"{endpoint}/{REPO}/resolve/main/config.json") == 503


def test_a_snapshot_that_another_program_removed_is_not_ready(nodes: Nodes, model: Path, coordinator: str) -> None:
    where = daemon(nodes, coordinator)
    ready = f"{where['url']}/readyz?model={REPO}@main"
    metrics = f"{where['url']}/metrics"
    assert isinstance(content_at(ready), bytes)
    shutil.rmtree(nodes.cache("node") / "models--org--model")
    assert content_at(ready) == 503
    pattern = re.compile(r"^p2pmodel_snapshot_ready\{.*\} (.*)$", re.MULTILINE)

    def figures() -> list[str]:
        return pattern.findall(str(content_at(metrics), "ascii"))

    eventually(lambda: [float(each) for each in figures()] == [0.0], PATIENCE, lambda: str(figures()))
    view = one(nodes)
    assert (view["state"], view["complete"]) == ("failed", False)
    assert "another program removed" in view["error"]["message"]
    nodes.ok("node", "fetch", REPO)
    assert contents(snapshot(nodes)) == contents(model)


def test_the_background_check_finds_silent_damage_and_the_transfer_repairs_it(
    nodes: Nodes, model: Path, coordinator: str
) -> None:
    where = daemon(nodes, coordinator, P2PMODEL_STORE_SCRUB_INTERVAL="0.00001", P2PMODEL_STORE_SCRUB_RATE="100000000")
    flip(blob(nodes))
    inode = blob(nodes).stat().st_ino
    eventually(lambda: blob(nodes).stat().st_ino != inode, PATIENCE, lambda: str(one(nodes)))
    seeding(nodes)
    assert contents(snapshot(nodes)) == contents(model)
    status = nodes.ok("node", "status", "--json").json
    assert status["scrub"]["found"] == 1
    figures = str(content_at(f"{where['url']}/metrics"), "ascii")
    assert "p2pmodel_scrub_damaged_blobs_total 1.0" in figures
    assert re.search(r"^p2pmodel_scrub_last_pass_timestamp_seconds [1-9]", figures, re.MULTILINE)
