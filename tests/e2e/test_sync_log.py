"""The public sync log: of a pull-through mirror and of `mirror sync`, over HTTP and as a file."""

import hashlib
import json
import urllib.request
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, Nodes, eventually


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 2_000_000)
    (folder / "config.json").write_text("{}")
    return folder


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        content: bytes = answer.read()
    return content


def test_the_pulls_of_a_mirror_can_be_checked_by_all_clients(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    hub, _ = nodes.hub(model)
    endpoint, _ = nodes.mirror("--upstream", hub)
    log = f"{endpoint}/sync-log"
    nothing = nodes.run("auditor", "mirror", "log", "verify", log)
    assert nothing.code == 0
    assert nothing.out.strip() == "0" * 64
    read(f"{endpoint}/org/model/resolve/main/model.safetensors")
    eventually(lambda: len(read(log).splitlines()) == 1, PATIENCE)
    first = nodes.ok("auditor", "mirror", "log", "verify", log, "--json").json
    assert first["lines"] == 1
    nodes.ok("mirror", "mirror", "sync", "org/model", "--endpoint", hub, "-q")
    lines = [json.loads(line) for line in read(log).splitlines()]
    assert {line["path"]: line["sha256"] for line in lines} == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in model.iterdir()
    }
    assert {tuple(line["sources"]) for line in lines} == {(hub.removeprefix("http://"),)}
    assert {line["vouched_by"] for line in lines} == {f"mirror {hub.removeprefix('http://')}"}
    assert nodes.ok("auditor", "mirror", "log", "verify", log, "--expect", first["head"], "--json").json["lines"] == 2
    assert nodes.ok("mirror", "mirror", "log", "verify", "--json").json["lines"] == 2, "the node's own, by default"
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(read(log).replace(b"config.json", b"konfig.json"))
    changed = nodes.run("auditor", "mirror", "log", "verify", copy)
    assert changed.code == 5
    assert "line 2 of the sync log was changed" in changed.err
    copy.write_bytes(b"")
    cut = nodes.run("auditor", "mirror", "log", "verify", copy, "--expect", first["head"])
    assert cut.code == 5


def test_a_mirror_with_a_token_requires_it_for_the_log(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("secret-secret-secret")
    endpoint, _ = nodes.mirror("--token-file", str(token))
    assert nodes.run("auditor", "mirror", "log", "verify", f"{endpoint}/sync-log").code == 4
    assert nodes.run("auditor", "mirror", "log", "verify", f"{endpoint}/sync-log", "--token-file", token).code == 0
    assert nodes.run("auditor", "mirror", "log", "verify", "http://127.0.0.9:9/sync-log").code == 6
    assert nodes.run("auditor", "mirror", "log", "verify", "/nowhere").code == 7
