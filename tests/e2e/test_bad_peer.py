"""A peer that sends some blocks wrong, beside good ones: it alone is banned, and every download is right."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, ROOT, Nodes

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
RUNS = 10
BAD = "127.0.0.66"
BANNED = f"peer {BAD} sent bad pieces and is banned"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number, size in enumerate((5_000_000, 3_000_000, 1_000)):
        (source / f"{number}.safetensors").write_bytes(random.Random(number).randbytes(size))
    return source


@pytest.fixture
def torrent(tmp_path: Path) -> Path:
    return tmp_path / "model.torrent"


@pytest.fixture
def coordinator(nodes: Nodes, model: Path, torrent: Path) -> str:
    """A swarm with two good peers, both slower than the bad one, so that the bad one receives many requests."""
    slow = ("--upload-limit", 3_000_000)
    url = str(nodes.seed(model, "--as", REPO, "-o", torrent, *slow).ready()["coordinator"])
    nodes.fetch("good", *where(url), "--seed-time", "600", *slow, address="127.0.0.8").ready()
    return url


@pytest.fixture
def bad_peer(coordinator: str, model: Path, torrent: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.support.corrupt_peer", torrent, model, "--host", BAD]
    command += ["--tracker", f"{coordinator}/announce", "--rate", "0.02"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline().startswith(BAD)
        yield
        process.stdin.close()
        process.wait(PATIENCE)


def where(coordinator: str) -> tuple[str, ...]:
    """The model, from this swarm and from no mirror."""
    return (REPO, "--coordinator", coordinator, "--endpoint", "http://127.0.0.9:9")


@pytest.mark.usefixtures("bad_peer")
def test_a_bad_peer_alone_is_banned_and_every_download_is_right(nodes: Nodes, model: Path, coordinator: str):
    for run in range(RUNS):
        done = nodes.fetch(f"peer{run}", *where(coordinator), address=f"127.0.0.{10 + run}").wait()
        assert done.code == 0, (run, done.err)
        notes = [json.loads(line).get("note", "") for line in done.err.splitlines()]
        assert [note for note in notes if "ban" in note] == [BANNED], run
        path = Path(done.json["path"])
        assert {p.name: p.read_bytes() for p in path.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}
