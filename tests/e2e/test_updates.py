"""An update in real processes: only what changed is sent, and the old revision outlives a kill."""

import random
import signal
import time
from pathlib import Path

from p2pmodel.store.cache import HubCache
from tests.support.hub_snapshot import snapshot_of
from tests.support.processes import PATIENCE, Nodes, eventually
from tests.support.shards import random_tensors, shard
from tests.support.stored import publish

REPO = "org/model"
PIECE = 128 << 10
CHANGED = 1_000_000
WEIGHTS = "model.safetensors"
UNREACHABLE = "http://127.0.0.1:9"


def test_moved_tensors_are_copied_and_a_killed_update_leaves_the_old_revision(nodes: Nodes, tmp_path: Path):
    old = random_tensors(8, 1_000_000)
    new = {"new.weight": random.Random(3).randbytes(CHANGED), **dict(reversed(old.items()))}
    source = tmp_path / "source"
    source.mkdir()
    (source / WEIGHTS).write_bytes(shard(new, {"format": "pt"}))
    (source / "README.md").write_text("new")
    before = publish(HubCache(nodes.cache("peer")), snapshot_of({WEIGHTS: shard(old), "README.md": b"old"}), refs=())
    old_weights = nodes.cache("peer") / "models--org--model" / "snapshots" / before.commit / WEIGHTS

    seeder = nodes.seed(source, "--as", REPO, "--upload-limit", "1000000")
    where = (REPO, "--coordinator", seeder.ready()["coordinator"], "--endpoint", UNREACHABLE)
    running = nodes.fetch("peer", *where)
    eventually(lambda: running.progress().get("phase") == "downloading", PATIENCE, lambda: "".join(running.err))
    time.sleep(random.uniform(0, 0.3))
    running.stop(signal.SIGKILL)
    assert old_weights.read_bytes() == shard(old)

    done = nodes.fetch("peer", *where).wait()
    assert done.code == 0, done.err
    assert (Path(done.json["path"]) / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()
    assert old_weights.read_bytes() == shard(old)
    assert done.json["from_peers"] <= CHANGED + 4 * PIECE
