"""The daemon's hub endpoint with Hugging Face's own clients, configured by HF_ENDPOINT alone."""

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.endpoint_clients import DEAD, DOWNLOAD, REPO, apart, contents, daemon, gets, shared, tracker
from tests.support.hub_clients import HubClient, each_hub_python, new_hub_python, old_hub_python, one_hub_python
from tests.support.processes import PATIENCE, Nodes, environment, eventually, served
from tests.support.tiny_models import dense, moe

__all__ = ["dense", "each_hub_python", "moe", "new_hub_python", "old_hub_python", "one_hub_python"]

pytestmark = pytest.mark.main

SIZE = 24 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two shards that are large, and a small file."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    for number in range(2):
        (source / f"model-{number}.safetensors").write_bytes(random.Random(number).randbytes(SIZE))
    return source


def test_a_cold_node_pulls_from_the_mirror_and_the_next_one_from_it(
    nodes: Nodes, model: Path, each_hub_python: Path
) -> None:
    hub, hub_log = nodes.hub(model, repo=REPO)
    where = ("--coordinator", tracker(nodes), "--endpoint", hub)
    first = daemon(nodes, "first", "127.0.0.11", *where)
    snapshot = Path(shared(nodes, "first", first, each_hub_python).script(DOWNLOAD, REPO))
    assert contents(snapshot) == contents(model)
    assert gets(served(nodes.root / "first.log")) == [], "a client of the daemon's cache requests no bytes"
    eventually(lambda: state(nodes, "first") == "seeding", PATIENCE, lambda: state(nodes, "first"))

    before = len(served(hub_log))
    second = daemon(nodes, "second", "127.0.0.12", *where)
    assert contents(Path(shared(nodes, "second", second, each_hub_python).script(DOWNLOAD, REPO))) == contents(model)
    assert gets(served(nodes.root / "second.log")) == []
    assert not [r for r in served(hub_log)[before:] if "/resolve/" in r["path"]], "the mirror sent no file"
    shared(nodes, "second", second).hf("cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files")
    theirs = apart(nodes, "elsewhere", second, each_hub_python)
    assert contents(Path(theirs.script(DOWNLOAD, REPO))) == contents(model)
    sent = {r["path"].rpartition("/")[2]: r["bytes"] for r in served(nodes.root / "second.log") if r["bytes"]}
    assert {name: sent[name] for name in contents(model)} == {n: len(data) for n, data in contents(model).items()}
    for running in (first, second):
        assert running.stop().code == 0


def states(nodes: Nodes, node: str) -> dict[str, str]:
    return {each["repo"]: each["state"] for each in nodes.ok(node, "status", "--json").json["transfers"]}


def state(nodes: Nodes, node: str) -> str:
    [transfer] = nodes.ok(node, "status", "--json").json["transfers"]
    return str(transfer["state"])


def test_a_client_with_its_own_cache_reads_a_growing_file(nodes: Nodes, model: Path) -> None:
    """The transfer takes longer than the client would wait without a byte."""
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", "4000000").ready()["coordinator"]
    running = daemon(nodes, "node", "127.0.0.11", "--coordinator", str(seeder), "--endpoint", DEAD)
    theirs = apart(nodes, "elsewhere", running)
    assert contents(Path(theirs.script(DOWNLOAD, REPO))) == contents(model)


def test_a_small_file_does_not_wait_behind_whole_models(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (small / "config.json").write_text('{"small": 1}')
    (small / "model.safetensors").write_bytes(bytes(SIZE))
    slow, _ = nodes.hub(model, "slow:100000@*.safetensors", repo="org/big")
    hub, _ = nodes.hub(small, repo=REPO)
    config = tmp_path / "p2pmodel.toml"
    config.write_text("".join(f'[[mirrors]]\nname = "{n}"\nendpoint = "{url}"\n' for n, url in enumerate((slow, hub))))
    running = daemon(nodes, "node", "127.0.0.11", "--max-active", "1", "--config", config)
    with urlopen(f"{running.ready()['hub']}/org/big/resolve/main/model-0.safetensors") as whole:
        assert whole.read(1)
        apart(nodes, "elsewhere", running).hf("download", REPO, "config.json")
        assert states(nodes, "node") == {"org/big": "active", REPO: "queued"}


def test_only_requested_files_of_a_repository_are_downloaded(nodes: Nodes, model: Path) -> None:
    hub, hub_log = nodes.hub(model, repo=REPO)
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", hub)
    client = shared(nodes, "node", running)
    client.hf("download", REPO, "config.json")
    assert not [r for r in served(hub_log) if r["method"] == "GET" and r["path"].endswith(".safetensors")]
    client.hf("download", REPO, "--include", "model-0*")
    assert contents(Path(client.script(DOWNLOAD, REPO))) == contents(model)
    assert gets(served(nodes.root / "node.log")) == []


def test_clients_finish_correctly_after_a_killed_daemon_restarts(nodes: Nodes, model: Path) -> None:
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", "8000000").ready()["coordinator"]
    where = ("--coordinator", str(seeder), "--endpoint", DEAD)
    running = daemon(nodes, "node", "127.0.0.11", *where, hub="127.0.0.43:0")
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
    """The contents of the download, repeated as by a user when it fails."""
    for _ in range(times - 1):
        try:
            return contents(Path(client.script(DOWNLOAD, REPO)))
        except AssertionError:
            continue
    return contents(Path(client.script(DOWNLOAD, REPO)))


def test_offline_it_serves_cached_snapshots(nodes: Nodes, model: Path, each_hub_python: Path) -> None:
    """No mirror and no coordinator; each client continues at once instead of after minutes."""
    nodes.ok("node", "import", model, REPO)
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", DEAD, HF_HUB_OFFLINE="1")
    ours, theirs = shared(nodes, "node", running, each_hub_python), apart(nodes, "elsewhere", running, each_hub_python)
    for client in (ours, theirs):
        assert contents(Path(client.script(DOWNLOAD, REPO))) == contents(model)
    shared(nodes, "node", running).hf("cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files")
    for kind in ("model", "dataset"):
        with pytest.raises(AssertionError, match="no mirror may be asked; unset HF_HUB_OFFLINE"):
            theirs.hf("download", "org/none", "config.json", "--repo-type", kind)


def test_without_mirrors_it_serves_cached_snapshots(nodes: Nodes, model: Path, each_hub_python: Path) -> None:
    nodes.ok("node", "import", model, REPO)
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", DEAD, "--coordinator", DEAD)
    for client in (
        shared(nodes, "node", running, each_hub_python),
        apart(nodes, "elsewhere", running, each_hub_python),
    ):
        assert contents(Path(client.script(DOWNLOAD, REPO))) == contents(model)


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
import hashlib, json, sys, torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
config = AutoConfig.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
found = hashlib.sha256()
for name, tensor in sorted(model.state_dict().items()):
    found.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
print(json.dumps([config.model_type, tokenizer("a red circle")["input_ids"], found.hexdigest()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_from_pretrained_loads_a_model_by_its_name(nodes: Nodes, kind: str, request: pytest.FixtureRequest) -> None:
    built: Path = request.getfixturevalue(kind)
    hub, _ = nodes.hub(built, repo="org/tiny-vl")
    running = daemon(nodes, "node", "127.0.0.11", "--endpoint", hub)
    clients = shared(nodes, "node", running), apart(nodes, "elsewhere", running)
    expected = clients[0].script(FROM_PRETRAINED, str(built))
    assert expected[0] == ("qwen3_vl" if kind == "dense" else "qwen3_vl_moe")
    for client in clients:
        assert client.script(FROM_PRETRAINED, "org/tiny-vl") == expected
    asked = [r for r in served(nodes.root / "node.log") if r["method"] == "GET" and r["path"].endswith(".safetensors")]
    shards = {p.name: p.stat().st_size for p in built.glob("*.safetensors")}
    assert {r["path"].rpartition("/")[2]: r["bytes"] for r in asked} == shards
    assert len(asked) == len(shards), "only the client with its own cache requests bytes"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hub-listen", "0.0.0.0:0"), "token"),
        (("--hub-listen", "8092"), "ADDRESS:PORT"),
        (("--endpoint", "http://localhost:8092"), "own endpoint"),
    ],
)
def test_invalid_options_are_an_error(nodes: Nodes, options: tuple[str, ...], words: str) -> None:
    ended = nodes.run("node", "daemon", *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1
