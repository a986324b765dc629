"""Real processes: a bundle joins the swarm that it came from, and fills a machine that reaches nothing."""

import json
from pathlib import Path

import pytest

from tests.support.processes import Nodes
from tests.support.ssh_keys import SshKeys

pytestmark = pytest.mark.needs("ssh-keygen")

REPO = "org/model"


def test_a_bundle_on_a_network_and_on_an_island(nodes: Nodes, tmp_path: Path) -> None:
    keys, files = SshKeys(tmp_path / "keys"), tmp_path / "files"
    key = keys.new("key")
    rules = json.dumps([{"repos": ["org/*"], "signature": "enforce"}])
    allowed = str(keys.allow(f"alice {keys.public(key)}"))
    strict = {"P2PMODEL_TRUST_RULES": rules, "P2PMODEL_TRUST_ALLOWED_SIGNERS": allowed}
    files.mkdir()
    (files / "config.json").write_bytes(b"{}")
    (files / "model.safetensors").write_bytes(b"weights!" * 100_000)
    signing = {"P2PMODEL_TRUST_SIGNING_KEY": str(key)}
    coordinator = str(nodes.seed(files, "--as", REPO, **signing).ready()["coordinator"])
    small, whole = tmp_path / "small.tar", tmp_path / "whole.tar"
    export = ("bundle", "export", REPO, "-q", "--coordinator", coordinator, "-o")
    nodes.ok("seeder", *export, small, **signing)
    nodes.ok("seeder", *export, whole, "--files", **signing)
    assert small.stat().st_size < 100_000 < whole.stat().st_size

    done = nodes.fetch("peer", str(small), **strict).wait()
    assert done.code == 0, done.err
    assert done.json["vouched_by"] == "signature alice"
    assert (Path(done.json["path"]) / "model.safetensors").read_bytes() == (files / "model.safetensors").read_bytes()

    island = {**strict, "HF_HUB_OFFLINE": "1", "P2PMODEL_SWARM_TRUST": "mirrors"}
    arrived = nodes.ok("island", "bundle", "import", whole, "--json", **island).json
    assert (arrived["vouched_by"], arrived["refs"]) == ("signature alice", ["main"])
    assert nodes.ok("island", "verify", REPO, "--json", **island).json["ok"] == 2
