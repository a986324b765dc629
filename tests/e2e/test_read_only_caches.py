"""A cache on a read-only mount: everything that only reads works, and the state goes to the node's own folder."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.disks import read_only
from tests.support.processes import PATIENCE, Nodes, eventually

__all__ = ["read_only"]

REPO = "org/model"
DEAD = "http://127.0.0.1:9"


@pytest.fixture
def cache(nodes: Nodes, tmp_path: Path, read_only: Callable[[Path], None]) -> Path:
    """A cache with one snapshot of which no check is on record, read-only."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(random.Random(1).randbytes(1_000_000))
    nodes.ok("node", "import", source, REPO)
    cache = nodes.cache("node")
    shutil.rmtree(cache / "models--org--model" / ".p2pmodel")
    read_only(cache)
    return cache


def test_a_complete_snapshot_is_seeded(nodes: Nodes, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (cache / "probe").touch()
    torrent = tmp_path / "m.torrent"
    seeding = nodes.seed(REPO, "--endpoint", DEAD, "-o", torrent, node="node", HF_HUB_OFFLINE="1").ready()
    nodes.ok("peer", "fetch", torrent, "--endpoint", DEAD, "--peer", seeding["peer"])


def test_a_daemon_serves_it_to_a_swarm_without_being_asked(nodes: Nodes, cache: Path) -> None:
    coordinator = nodes.start("coordinator", "coordinator", "--listen", "127.0.0.5:0", "--json", "-q").ready()["url"]
    where = ("--coordinator", coordinator, "--endpoint", DEAD)
    daemon = nodes.start("node", "daemon", *where, "--swarm-listen", "127.0.0.11:0", "--json", "--hub-listen", "off")
    daemon.ready()
    assert any(f"{cache} cannot be written to" in line for line in daemon.err)

    def serves() -> bool:
        found = nodes.ok("node", "status", "--json").json["transfers"]
        return [(each["repo"], each["complete"], each["state"]) for each in found] == [(REPO, True, "seeding")]

    eventually(serves, PATIENCE, lambda: "".join(daemon.err))
    got = json.loads(nodes.fetch("peer", REPO, *where).wait().out)
    assert (got["from_mirrors"], got["from_peers"]) == (0, 1_000_002)
    assert daemon.stop().code == 0
