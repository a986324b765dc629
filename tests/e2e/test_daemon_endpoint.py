"""The daemon's hub endpoint as Hugging Face's own clients see it: nothing but HF_ENDPOINT leads to it."""

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_clients import HubClient, old_hub_python, one_hub_python
from tests.support.processes import Nodes, Running, environment, eventually, served
from tests.support.tiny_models import dense

__all__ = ["dense", "old_hub_python", "one_hub_python"]

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
SIZE = 24 << 20
PATIENCE = 60.0
PYTHON = Path(sys.executable)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two shards that are large, and a small file."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    for number in range(2):
        (source / f"model-{number}.safetensors").write_bytes(random.Random(number).randbytes(SIZE))
    return source


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def daemon(
    nodes: Nodes, node: str, address: str, *options: str | Path, hub: str = "127.0.0.1:0", **env: str
) -> Running:
    where = ("--swarm-listen", f"{address}:0", "--hub-listen", hub, "--access-log", nodes.root / f"{node}.log")
    running = nodes.start(node, "daemon", *where, "--json", *options, **env)
    running.ready()
    return running


def tracker(nodes: Nodes) -> str:
    return str(nodes.start("tracker", "tracker", "serve", "--listen", "127.0.0.5:0", "--json").ready()["url"])


def shared(nodes: Nodes, node: str, running: Running, python: Path = PYTHON) -> HubClient:
    """A client that has the daemon's cache."""
    return HubClient(python, nodes.root / node, str(running.ready()["hub"]))


def apart(nodes: Nodes, name: str, running: Running, python: Path = PYTHON) -> HubClient:
    """A client with a cache of its own."""
    home = nodes.root / name
    home.mkdir()
    return HubClient(python, home, str(running.ready()["hub"]))


def gets(log: list[dict[str, Any]]) -> list[str]:
    """Files of which somebody asked for more than the headers."""
    return [r["path"] for r in log if r["method"] == "GET" and "/resolve/" in r["path"]]


DOWNLOAD = """
import json, sys
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download(*sys.argv[1:])))
"""


def test_a_cold_node_pulls_from_the_mirror_and_the_next_one_from_it(nodes: Nodes, model: Path) -> None:
    hub, hub_log = nodes.hub(model, repo=REPO)
    coordinator = tracker(nodes)
    where = ("--coordinator", coordinator, "--endpoint", hub)
    first = daemon(nodes, "first", "127.0.0.11", *where)
    snapshot = Path(shared(nodes, "first", first).script(DOWNLOAD, REPO))
    assert contents(snapshot) == contents(model)
    assert gets(served(nodes.root / "first.log")) == [], "a client of the daemon's cache never asks for a byte"
    eventually(lambda: state(nodes, "first") == "seeding", PATIENCE, lambda: state(nodes, "first"))

    before = len(served(hub_log))
    second = daemon(nodes, "second", "127.0.0.12", *where)
    client = shared(nodes, "second", second)
    assert contents(Path(client.script(DOWNLOAD, REPO))) == contents(model)
    assert gets(served(nodes.root / "second.log")) == []
    assert not [r for r in served(hub_log)[before:] if "/resolve/" in r["path"]], "the mirror sent it nothing"
    client.hf("cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files")
    assert apart_download(nodes, "elsewhere", second) == contents(model)
    for running in (first, second):
        assert running.stop().code == 0


def state(nodes: Nodes, node: str) -> str:
    [transfer] = nodes.ok(node, "status", "--json").json["transfers"]
    return str(transfer["state"])


def apart_download(nodes: Nodes, name: str, running: Running) -> dict[str, bytes]:
    client = apart(nodes, name, running)
    return contents(Path(client.hf("download", REPO, "--format", "quiet").strip().splitlines()[-1]))


def test_a_client_with_its_own_cache_reads_what_arrives(nodes: Nodes, model: Path) -> None:
    """The seeder takes longer than the client would wait without a byte."""
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", "4000000").ready()["coordinator"]
    running = daemon(nodes, "node", "127.0.0.11", "--coordinator", str(seeder), "--endpoint", DEAD)
    assert apart_download(nodes, "elsewhere", running) == contents(model)


@pytest.mark.parametrize("python", ["old_hub_python", "one_hub_python"], ids=["hub-0.36", "hub-1"])
def test_older_clients(nodes: Nodes, model: Path, python: str, request: pytest.FixtureRequest) -> None:
    older: Path = request.getfixturevalue(python)
    hub, _ = nodes.hub(model, repo=REPO)
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", hub)
    ours = shared(nodes, "node", running, older)
    assert contents(Path(ours.script(DOWNLOAD, REPO))) == contents(model)
    assert gets(served(nodes.root / "node.log")) == []
    theirs = apart(nodes, "elsewhere", running, older)
    assert contents(Path(theirs.script(DOWNLOAD, REPO))) == contents(model)


def test_of_a_repository_only_what_is_asked_for_is_brought(nodes: Nodes, model: Path) -> None:
    hub, hub_log = nodes.hub(model, repo=REPO)
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", hub)
    client = shared(nodes, "node", running)
    client.hf("download", REPO, "config.json")
    assert not [r for r in served(hub_log) if r["method"] == "GET" and r["path"].endswith(".safetensors")]
    client.hf("download", REPO, "--include", "model-0*")
    assert contents(Path(client.script(DOWNLOAD, REPO))) == contents(model)
    assert gets(served(nodes.root / "node.log")) == []


def test_killed_and_started_again_the_clients_end_right(nodes: Nodes, model: Path) -> None:
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", "8000000").ready()["coordinator"]
    where = ("--coordinator", str(seeder), "--endpoint", DEAD)
    running = daemon(nodes, "node", "127.0.0.11", *where)
    address = str(running.ready()["hub"]).removeprefix("http://")
    clients = [shared(nodes, "node", running), apart(nodes, "elsewhere", running)]
    found: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda c=client: found.append(tried(c))) for client in clients]
    for thread in threads:
        thread.start()
    eventually(lambda: done(nodes) > SIZE // 4, PATIENCE, lambda: str(done(nodes)))
    running.stop(signal.SIGKILL)
    running = daemon(nodes, "node", "127.0.0.11", *where, hub=address)
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert found == [contents(model)] * 2
    assert nodes.ok("node", "verify", REPO).code == 0


def done(nodes: Nodes) -> int:
    transfers = nodes.ok("node", "status", "--json").json["transfers"]
    return max((int(t["progress"]["done"]) for t in transfers if t["progress"]["phase"] == "downloading"), default=0)


def tried(client: HubClient, times: int = 5) -> dict[str, bytes]:
    """What a user has who runs the command again when it fails."""
    for _ in range(times - 1):
        try:
            return contents(Path(client.script(DOWNLOAD, REPO)))
        except AssertionError:
            continue
    return contents(Path(client.script(DOWNLOAD, REPO)))


def test_offline_it_serves_what_is_held(nodes: Nodes, model: Path) -> None:
    nodes.ok("node", "import", model, REPO)
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", DEAD, HF_HUB_OFFLINE="1")
    assert apart_download(nodes, "elsewhere", running) == contents(model)


def test_env_is_all_that_a_client_needs(nodes: Nodes, model: Path) -> None:
    nodes.ok("node", "import", model, REPO)
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", DEAD)
    exports = nodes.ok("node", "env").out
    script = f"{exports}\nexec {sys.executable} -m huggingface_hub.cli.hf download {REPO} --format quiet"
    home = environment(nodes.root / "client" / "hub")
    done = subprocess.run(
        ["sh", "-ec", script], env=home, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip().splitlines()[-1]).is_relative_to(nodes.cache("node"))
    told = nodes.ok("node", "env", "--json").json
    assert (told["HF_ENDPOINT"], told["HF_HUB_CACHE"]) == (running.ready()["hub"], str(nodes.cache("node")))
    assert running.stop().code == 0
    assert nodes.run("node", "env").code == 6


FROM_PRETRAINED = """
import json, sys
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = Qwen3VLForConditionalGeneration.from_pretrained(sys.argv[1])
print(json.dumps([len(tokenizer("a red circle")["input_ids"]) > 0, model.num_parameters() > 0]))
"""


@pytest.mark.slow
def test_from_pretrained_loads_a_model_by_its_name(nodes: Nodes, dense: Path) -> None:
    hub, _ = nodes.hub(dense, repo="org/tiny-vl")
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", hub)
    for client in (shared(nodes, "node", running), apart(nodes, "elsewhere", running)):
        assert client.script(FROM_PRETRAINED, "org/tiny-vl") == [True, True]
    asked = [r for r in served(nodes.root / "node.log") if r["method"] == "GET" and r["path"].endswith(".safetensors")]
    shards = {p.name: p.stat().st_size for p in dense.glob("*.safetensors")}
    assert {r["path"].rpartition("/")[2]: r["bytes"] for r in asked} == shards
    assert len(asked) == len(shards), "of the two clients only the one apart"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hub-listen", "0.0.0.0:0"), "token"),
        (("--hub-listen", "8092"), "ADDRESS:PORT"),
        (("--endpoint", "http://localhost:8092"), "own endpoint"),
    ],
)
def test_it_says_what_may_not_be(nodes: Nodes, options: tuple[str, ...], words: str) -> None:
    ended = nodes.run("node", "daemon", *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1
