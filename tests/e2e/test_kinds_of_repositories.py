"""Datasets in the swarm as models are, and ModelScope beside a hub: real processes."""

import random
import sys
from pathlib import Path

import pytest

from tests.support.processes import Nodes, served


def folder_of(root: Path, **files: bytes) -> Path:
    root.mkdir()
    for name, data in files.items():
        (root / f"{name}.safetensors").write_bytes(data)
    return root


def test_a_dataset_goes_through_swarm_and_cache(nodes: Nodes, tmp_path: Path) -> None:
    hub, log = nodes.hub(
        folder_of(tmp_path / "data", train=random.Random(5).randbytes(2_000_000)), options=("--kind", "datasets")
    )
    seeder = nodes.seed("datasets/org/model", "--endpoint", hub)
    coordinator = seeder.ready()["coordinator"]
    before = len(served(log))
    # Without a mirror: the coordinator's word counts, and all bytes are from peers.
    fetched = nodes.fetch("peer", "org/model", "--repo-type", "dataset", "--coordinator", coordinator).wait()
    assert fetched.code == 0, fetched.err
    path = Path(fetched.json["path"])
    assert (fetched.json["repo"], path.parent.parent.name) == ("datasets/org/model", "datasets--org--model")
    assert (path / "train.safetensors").stat().st_size == 2_000_000
    assert len(served(log)) == before
    listed = nodes.ok("peer", "ls", "--json").json
    assert [each["repo"] for each in listed["snapshots"]] == ["datasets/org/model"]


@pytest.mark.main
def test_modelscope_sends_what_is_the_hubs(nodes: Nodes, tmp_path: Path) -> None:
    """One shard differs there: it alone comes from the hub's mirror."""
    dice = random.Random(6)
    contents = {name: dice.randbytes(1_000_000) for name in ("one", "two", "three")}
    hub, log = nodes.hub(folder_of(tmp_path / "hub-files", **contents))
    theirs = folder_of(tmp_path / "scope-files", **contents | {"two": dice.randbytes(1_000_000)})
    sent = tmp_path / "scope.log"
    command = ("-m", "tests.support.fake_modelscope", "--dir", str(theirs), "--repo", "org/model", "--log", str(sent))
    scope = nodes.program("scope", sys.executable, *command).ready()["url"]
    settings = tmp_path / "p2pmodel.toml"
    settings.write_text(
        f'[[mirrors]]\npreset = "modelscope"\nendpoint = "{scope}"\n[[mirrors]]\nname = "hub"\nendpoint = "{hub}"\n'
    )
    path = Path(nodes.ok("peer", "fetch", "org/model", "--config", settings).out.strip())
    assert {name: (path / f"{name}.safetensors").read_bytes() for name in contents} == contents
    assert set(sent.read_text().split()) == {"one.safetensors", "three.safetensors"}
    files = {each["path"].rpartition("/")[2] for each in served(log) if "/resolve/" in each["path"]}
    assert files == {"two.safetensors"}
