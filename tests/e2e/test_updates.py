"""An update in real processes: only what changed is sent, and the old revision outlives kills."""

import random
import signal
import time
from pathlib import Path

from p2pmodel.store.cache import HubCache
from tests.support.hub_snapshot import snapshot_of
from tests.support.processes import PATIENCE, Nodes, Running, eventually
from tests.support.shards import random_tensors, shard
from tests.support.stored import publish

REPO = "org/model"
CHANGED = 1_000_000
SPARE = 60_000
"""Bytes of a header, of small files, and of rests of pieces that are too small for requests of their own."""
KILLS = 2
WEIGHTS = "model.safetensors"
UNREACHABLE = "http://127.0.0.1:9"


def kill_while_downloading(running: Running) -> None:
    eventually(lambda: running.progress().get("phase") == "downloading", PATIENCE, lambda: "".join(running.err))
    time.sleep(random.uniform(0, 0.3))
    running.stop(signal.SIGKILL)


def test_moved_tensors_are_copied_and_killed_updates_leave_the_old_revision(nodes: Nodes, tmp_path: Path):
    old = random_tensors(8, 1_000_000)
    new = {"new.weight": random.Random(3).randbytes(CHANGED), **dict(reversed(old.items()))}
    source = tmp_path / "source"
    source.mkdir()
    (source / WEIGHTS).write_bytes(shard(new, {"format": "pt"}))
    (source / "README.md").write_text("new")
    before = publish(HubCache(nodes.cache("peer")), snapshot_of({WEIGHTS: shard(old), "README.md": b"old"}))
    repo = nodes.cache("peer") / "models--org--model"
    old_weights = repo / "snapshots" / before.commit / WEIGHTS

    seeder = nodes.seed(source, "--as", REPO, "--upload-limit", "1000000")
    where = ("--coordinator", seeder.ready()["coordinator"], "--endpoint", UNREACHABLE)
    where = (*where, "--swarm-listen", "127.0.0.11:0", "--json")
    for _ in range(KILLS):
        kill_while_downloading(nodes.start("peer", "update", REPO, *where, "--progress", "json"))
        assert old_weights.read_bytes() == shard(old)
        assert (repo / "refs" / "main").read_text() == before.commit

    nodes.start("peer", "daemon", *where).ready()
    [updated] = nodes.ok("peer", "update", "--json").json["updates"]
    assert (updated["state"], updated["before"]) == ("updated", before.commit)
    assert (Path(updated["path"]) / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()
    assert old_weights.read_bytes() == shard(old)
    assert updated["downloaded"] <= CHANGED + SPARE
    [again] = nodes.ok("peer", "update", "--json").json["updates"]
    assert (again["state"], again["commit"]) == ("newest", updated["commit"])
