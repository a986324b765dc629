"""Real processes: a seeder signs, nodes require it, and nothing of a wrong signer gets onto them."""

import json
from pathlib import Path

import pytest

from tests.support.processes import Nodes
from tests.support.ssh_keys import SshKeys

pytestmark = pytest.mark.needs("ssh-keygen")

REPO = "org/model"


def folder(path: Path, word: bytes) -> Path:
    path.mkdir()
    (path / "config.json").write_bytes(b"{}")
    (path / "model.safetensors").write_bytes(word * 100_000)
    return path


def test_a_signed_snapshot_is_fetched_and_that_of_a_wrong_signer_leaves_nothing(nodes: Nodes, tmp_path: Path) -> None:
    keys = SshKeys(tmp_path / "keys")
    key, stranger = keys.new("key"), keys.new("stranger", "ecdsa")
    rules = json.dumps([{"repos": ["ORG/*"], "signature": "enforce", "signers": ["alice"]}])
    allowed = keys.allow(f"alice {keys.public(key)}", f"bob {keys.public(stranger)}")
    strict = {"P2PMODEL_TRUST_RULES": rules, "P2PMODEL_TRUST_ALLOWED_SIGNERS": str(allowed)}
    lax = strict | {"P2PMODEL_TRUST_RULES": rules.replace("enforce", "warn")}

    evil = folder(tmp_path / "evil", b"evil")
    seeder = nodes.seed(evil, "--as", REPO, P2PMODEL_TRUST_SIGNING_KEY=str(stranger))
    done = nodes.fetch("victim", REPO, "--coordinator", str(seeder.ready()["coordinator"]), **strict).wait()
    assert done.code == 5, done.err
    assert "is refused: its signature does not count: its signer is none that may sign this" in done.err
    assert not [path for path in nodes.cache("victim").glob("models--*/**/*") if path.is_file()]
    seeder.stop()

    good, torrent = folder(tmp_path / "good", b"good"), tmp_path / "good.torrent"
    signing = {"P2PMODEL_TRUST_SIGNING_KEY": str(key), "P2PMODEL_SWARM_TRUST": "mirrors"}
    seeder = nodes.seed(good, "--as", REPO, "-o", str(torrent), **signing)
    ready = seeder.ready()
    options = ("--coordinator", str(ready["coordinator"]))
    done = nodes.fetch("victim", REPO, *options, **strict).wait()
    assert done.code == 0, done.err
    assert (done.json["commit"], done.json["vouched_by"]) == (ready["commit"], "signature alice")
    assert json.loads((tmp_path / "good.torrent.signatures").read_bytes())["signatures"]

    # The key is revoked: what the daemon or a command had found before does not help.
    revoked = keys.folder / "revoked"
    revoked.write_text(keys.public(key))
    late = {"P2PMODEL_TRUST_REVOKED_SIGNERS": str(revoked)}
    assert nodes.fetch("victim", REPO, *options, **strict, **late).wait().code == 5
    done = nodes.fetch("other", str(torrent), **lax, **late).wait()
    assert done.code == 0, done.err
    assert done.err.count("its key is revoked") == 1
