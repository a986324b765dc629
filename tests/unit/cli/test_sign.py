"""`p2pmodel sign`, and what `verify` and `provenance` make of signatures."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.ssh_keys import SshKeys

pytestmark = [pytest.mark.needs("ssh-keygen"), pytest.mark.needs("openssl")]


@pytest.fixture
def files(cli: CommandLine, tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    cli.ok("import", folder, "org/model")
    return folder


def test_an_ssh_signature_of_a_snapshot_and_of_a_torrent(cli: CommandLine, files: Path, tmp_path: Path) -> None:
    keys = SshKeys(tmp_path / "keys")
    key = keys.new("key")
    env = {"P2PMODEL_TRUST_ALLOWED_SIGNERS": str(keys.allow(f"alice {keys.public(key)}"))}
    signed = json.loads(cli.ok("sign", "org/model", "--key", key, "--json"))
    assert signed["path"] == f"model-{signed['commit'][:12]}.signatures"
    allowed = keys.folder / "allowed_signers"
    assert keys.verifies(allowed, signed["statement"].encode(), signed["signature"])
    torrent = cli.ok("torrent", "create", "org/model", "-q", P2PMODEL_TRUST_SIGNING_KEY=str(key))
    other = keys.new("other")
    cli.ok("sign", torrent, "-q", P2PMODEL_TRUST_SIGNING_KEY=str(other))
    assert len(json.loads((cli.home / f"{torrent}.signatures").read_bytes())["signatures"]) == 2
    plain = json.loads(cli.ok("provenance", "org/model", "--json", P2PMODEL_TRUST_SIGNATURES=str(cli.home), **env))
    assert sorted(each["signer"] for each in plain["signatures"]) == ["", "alice", "alice"]


def test_what_cannot_be_signed_is_one_line(cli: CommandLine, files: Path, tmp_path: Path) -> None:
    keys = SshKeys(tmp_path / "keys")
    key = keys.new("key")
    assert "give --key" in cli.refuses(2, "sign", "org/model")
    assert "needs a coordinator" in cli.refuses(2, "sign", "org/model", "--key", key, "--publish")
    assert "is not in the cache" in cli.refuses(3, "sign", "org/other", "--key", key)
    (files / "config.json").chmod(0o600)
    assert "not a private key" in cli.refuses(2, "sign", "org/model", "--key", files / "config.json")
    key.chmod(0o644)
    assert "others can read" in cli.refuses(2, "sign", "org/model", "--key", key)
    assert "--format oms" in cli.refuses(2, "sign", "org/model", "--key", key, "--certificate", key)
    rules = json.dumps([{"repos": ["*"], "signature": "enforce"}])
    assert "need trust.allowed_signers" in cli.refuses(2, "fetch", "org/model", P2PMODEL_TRUST_RULES=rules)


def test_a_model_sig_counts_for_these_files_and_this_key(cli: CommandLine, files: Path, tmp_path: Path) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    openssl = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(openssl, check=True, capture_output=True)
    key.chmod(0o600)
    subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    keys = {"P2PMODEL_TRUST_MODEL_KEYS": str(public)}
    assert json.loads(cli.ok("verify", "org/model", "--json", **keys))["model_signature"] is None
    cli.ok("sign", "org/model", "--format", "oms", "--key", key, "-o", files / "model.sig")
    cli.ok("import", files, "org/model")
    assert json.loads(cli.ok("verify", "org/model", "--json", **keys))["model_signature"]["signer"] == "key 1"
    assert "counts, key 1" in cli.ok("provenance", "org/model", **keys)
    assert json.loads(cli.ok("verify", "org/model", "--json"))["model_signature"] is None
    (files / "config.json").write_bytes(b"[]")
    cli.ok("import", files, "org/model")
    done = cli("verify", "org/model", "-q", **keys)
    assert (done.code, "another hash of config.json" in done.err) == (5, True)
    stranger = tmp_path / "stranger.pem"
    cli.ok("import", files, "org/model")
    subprocess.run([*openssl[:-1], str(stranger)], check=True, capture_output=True)
    subprocess.run(["openssl", "ec", "-in", stranger, "-pubout", "-out", public], check=True, capture_output=True)
    assert "none of the model keys" in cli("verify", "org/model", "-q", **keys).err
