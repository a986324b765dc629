"""Two users of the same servers, one of them entitled: real hub clients at the daemon's endpoint and a mirror, torrent
clients at the coordinator. The model is in every cache already."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest

from p2pmodel.core.network.tokens import announce_key
from tests.support.endpoint_clients import DOWNLOAD, PYTHON, REPO, daemon
from tests.support.eventually import PATIENCE
from tests.support.hub_clients import HubClient
from tests.support.processes import Nodes, Running, eventually, token_file

NODES, ANNAS, BERTS = "hf_of_the_node", "hf_of_anna", "hf_of_bert"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    (source / "model.safetensors").write_bytes(os.urandom(300_000))
    return source


def refused(client: HubClient, error: str) -> None:
    """The real client raises `error`, and has got no byte."""
    with pytest.raises(AssertionError, match="exit 1") as failed:
        client.script(DOWNLOAD, REPO)
    assert error in str(failed.value), failed.value
    assert not list(client.home.rglob("*.safetensors"))


def user(nodes: Nodes, name: str, endpoint: str, token: str | None) -> HubClient:
    home = nodes.root / name
    home.mkdir(exist_ok=True)
    return HubClient(PYTHON, home, endpoint, token=token)


def settings(nodes: Nodes, hub: str, more: str = "") -> dict[str, str]:
    """The settings of a node with a token of its own at `hub`, which takes clients' tokens, too."""
    path = nodes.root / "p2pmodel.toml"
    path.write_text(
        f'[[mirrors]]\nname = "hub"\nendpoint = "{hub}"\nclient_tokens = true\ntoken_env = "HF_NODES_TOKEN"\n{more}'
    )
    return {"P2PMODEL_CONFIG": str(path), "HF_NODES_TOKEN": NODES}


AUDIT = "[audit]\nenabled = true\n[access]\nrights_ttl = 0\n"


def nowhere(nodes: Nodes, *runs: Running) -> None:
    """No token is in what was printed, in an argument, or in a file other than the log of the hub itself."""
    for token in (NODES, ANNAS, BERTS):
        found = [p for p in nodes.root.rglob("*") if p.is_file() and not p.name.startswith("hub-")]
        assert not [p for p in found if token.encode() in p.read_bytes()], token
        assert not [line for run in runs for line in (*run.out, *run.err) if token in line], token


@pytest.mark.main
def test_a_gated_model_in_the_cache_is_for_clients_with_access(nodes: Nodes, data: Path) -> None:
    hub, _ = nodes.hub(data, options=("--token", f"{NODES},{ANNAS}", "--gated"))
    env = settings(nodes, hub, AUDIT)
    running = daemon(nodes, "node", "127.0.0.11", **env)
    mirror = nodes.start("node", "mirror", "serve", "--listen", "127.0.0.2:0", "--json", **env)
    for number, endpoint in enumerate((str(running.ready()["hub"]), str(mirror.ready()["endpoint"]))):
        assert Path(user(nodes, f"own-{number}", endpoint, None).script(DOWNLOAD, REPO)).is_dir(), "the own user"
        assert Path(user(nodes, f"anna-{number}", endpoint, ANNAS).script(DOWNLOAD, REPO)).is_dir()
        refused(user(nodes, f"bert-{number}", endpoint, BERTS), "GatedRepoError")
        refused(user(nodes, f"token-{number}", endpoint, "p2pm_0123456789abcdef"), "Invalid credentials")
    nodes.ok("node", "audit", "verify", **env)
    shown = nodes.ok("node", "audit", "show", "--json", **env).json["lines"]
    assert {line["subject"] for line in shown} == {"local", "hub"}
    assert {(line["repo"], line["path"]) for line in shown if line["subject"] == "hub"} >= {(REPO, "model.safetensors")}
    for process in (running, mirror):
        assert process.stop().code == 0
    nowhere(nodes, running, mirror)


RULES = """
[[access.rules]]
subjects = ["token:anna"]
repos = ["org/*"]
[[access.rules]]
subjects = ["token:bert"]
repos = ["other/*"]
"""


@pytest.mark.main
def test_rules_hold_at_every_server_and_a_reload_changes_them(nodes: Nodes, data: Path) -> None:
    hub, _ = nodes.hub(data)
    env = settings(nodes, hub, RULES)
    made = {name: nodes.ok("node", "token", "issue", name, "-q", **env).out.strip() for name in ("anna", "bert")}
    member = nodes.root / "member.token"
    member.touch(mode=0o600)
    member.write_text("0123456789abcdef0123\n")
    seed = nodes.start(
        *("node", "seed", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0", "--json", "-q"),
        *("--token-file", member),
        **env,
    )
    running = daemon(nodes, "node", "127.0.0.11", **env)
    coordinator, endpoint = str(seed.ready()["coordinator"]), str(running.ready()["hub"])
    assert Path(user(nodes, "anna", endpoint, made["anna"]).script(DOWNLOAD, REPO)).is_dir()
    refused(user(nodes, "bert", endpoint, made["bert"]), "token:bert may not read org/model (no rule)")

    def fetch(name: str) -> int:
        token = nodes.root / f"{name}.token"
        token.touch(mode=0o600)
        token.write_text(made[name])
        own = {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(token), "P2PMODEL_SWARM_TRUST": "coordinator"}
        where = ("--coordinator", coordinator, "--endpoint", "http://127.0.0.1:9")
        return nodes.fetch(f"fetch-{name}", REPO, *where, **own).wait().code

    assert fetch("anna") == 0
    assert fetch("bert") == 4
    assert not list((nodes.root / "fetch-bert").rglob("*.safetensors"))

    nodes.ok("node", "token", "revoke", "anna", **env)
    again = user(nodes, "anna-again", endpoint, made["anna"])
    eventually(lambda: not _downloads(again), PATIENCE)
    Path(env["P2PMODEL_CONFIG"]).write_text(
        Path(env["P2PMODEL_CONFIG"]).read_text().replace('repos = ["other/*"]', 'repos = ["org/*"]')
    )
    running.process.send_signal(signal.SIGHUP)
    bert = user(nodes, "bert", endpoint, made["bert"])
    eventually(lambda: _downloads(bert), PATIENCE)
    for process in (running, seed):
        process.stop()
        assert not [line for line in (*process.out, *process.err) if any(token in line for token in made.values())]
    logs = [path for path in nodes.root.rglob("*") if path.is_file() and path.suffix != ".token"]
    assert not [path for path in logs if any(token.encode() in path.read_bytes() for token in made.values())]


ENTITLED = """
[[access.rules]]
subjects = ["token:anna"]
verbs = ["read", "infer"]
repos = ["org/*"]
[[access.rules]]
subjects = ["token:anna"]
verbs = ["operate"]
[[access.rules]]
subjects = ["token:bert"]
verbs = ["read", "infer"]
repos = ["other/*"]
"""
HELLO: Any = [{"role": "user", "content": "hello"}]


def test_every_path_is_closed_to_the_other_user_and_the_audit_logs_say_so(nodes: Nodes, data: Path) -> None:
    """Hub endpoint, mirror, its files as a web seed, tracker, catalog, source, dashboard, metrics, a served model."""
    hub, _ = nodes.hub(data)
    stalled, _ = nodes.hub(data, "stall@*.safetensors")
    files = f'tokens_file = "{nodes.root}/access/tokens.json"\n[audit]\nenabled = true\nfolder = "{nodes.root}/audit"\n'
    env = settings(nodes, hub, f"{ENTITLED}[access]\n{files}")
    made = {name: nodes.ok("node", "token", "issue", name, "-q", **env).out.strip() for name in ("anna", "bert")}
    own = token_file(nodes.root / "own.token")
    at, guarded = ("--listen", "127.0.0.3:0"), ("--token-file", own)
    seed = nodes.start("node", "seed", REPO, *at, "--swarm-listen", "127.0.0.3:0", "--json", "-q", *guarded, **env)
    seed.ready()
    mirror = nodes.start("node", "mirror", "serve", "--listen", "127.0.0.2:0", "--json", *guarded, **env)
    control = ("--control-listen", "127.0.0.11:0", *guarded)
    node = nodes.start("node", "daemon", *control, "--hub-listen", "127.0.0.11:0", "--swarm-listen", "127.0.0.11:0",
                       "--json", **env)  # fmt: skip
    chat = nodes.start("chat", "serve", REPO, "--listen", "127.0.0.4:0", "--api-key-file", own, "--endpoint", stalled,
                       "--json", **env)  # fmt: skip
    secret = (data / "model.safetensors").read_bytes()[:64]
    coordinator, torrent = str(seed.ready()["coordinator"]), str(seed.ready()["info_hash"])
    commit = str(seed.ready()["commit"])
    file, swarm = f"/{REPO}/resolve/{commit}/model.safetensors", f"info_hash={quote(bytes.fromhex(torrent[:40]))}"
    api = f"/api/models/{REPO}"
    hubs = dict.fromkeys((file, f"{api}/revision/main", f"{api}/tree/{commit}", f"{api}/refs"), "GatedRepo")
    paths = {
        str(mirror.ready()["endpoint"]): hubs | {"/metrics": "", "/sync-log": ""},
        str(node.ready()["hub"]): hubs,
        str(node.ready()["url"]): {"/api/v1/node": "", "/api/v1/snapshots": "", "/metrics": ""},
        coordinator: {
            f"/catalog?repo={REPO}&revision=main": "",
            f"/catalog/torrents/{torrent}.torrent": "",
            f"/scrape?{swarm}": "",
            "/metrics": "",
        },
        str(chat.ready()["url"]): {"/v1/models": "", "/metrics": ""},
    }
    for base, each in paths.items():
        for path, code in each.items():
            assert _got(base + path, made["anna"])[0] == 200, base + path
            status, headers, body = _got(base + path, made["bert"])
            if path.startswith("/scrape"):
                assert (status, b"failure reason" in body) == (200, True)
            else:
                assert (status, headers.get("X-Error-Code", "")) == (403, code), (base + path, body)
            assert secret not in body
    assert _got(f"{coordinator}/source{file}", made["anna"])[0] == 401, "only the token of the source opens it"
    announced = f"{coordinator}/announce/{{}}?{swarm}&peer_id={'a' * 20}&port=7000&left=0&uploaded=0&downloaded=0"
    assert b"failure reason" not in _got(announced.format(announce_key(made["anna"])), "")[2]
    assert b"failure reason" in _got(announced.format(announce_key(made["bert"])), "")[2]
    client = openai.OpenAI(base_url=str(chat.ready()["api"]), api_key=made["bert"], max_retries=0)
    with client, pytest.raises(openai.PermissionDeniedError, match="token:bert may not get answers of org/model"):
        client.chat.completions.create(model=REPO, messages=HELLO)
    refused(user(nodes, "bert", str(node.ready()["hub"]), made["bert"]), "GatedRepoError")
    nodes.ok("node", "audit", "verify", **env)
    lines = nodes.ok("node", "audit", "show", "-n", "1000", "--json", **env).json["lines"]
    got = {(line["subject"], line["what"]) for line in lines if line["what"] != "refused"}
    assert {subject for subject, _ in got} == {"token:anna"}
    assert {what for _, what in got} >= {"file", "torrent"}
    denied = {(line["subject"], line["verb"]) for line in lines if line["what"] == "refused"}
    assert {("token:bert", verb) for verb in ("read", "infer", "operate")} <= denied
    assert "token:anna" not in {subject for subject, _ in denied}
    for process in (seed, mirror, node):
        assert process.stop().code == 0
    nodes.ok("node", "audit", "verify", **env)


def _got(url: str, token: str) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def _downloads(client: HubClient) -> bool:
    try:
        client.script(DOWNLOAD, REPO)
    except AssertionError:
        return False
    return True


def test_the_policy_on_contents_refuses_before_anything_is_visible(nodes: Nodes, data: Path) -> None:
    (data / "pytorch_model.bin").write_bytes(b"pickle" * 1000)
    hub, log = nodes.hub(data)
    config = nodes.root / "policy.toml"
    config.write_text('[[contents.rules]]\nformats = ["safetensors"]\nlicenses = ["apache-2.0"]\n')
    env = {"P2PMODEL_CONFIG": str(config)}
    done = nodes.run("node", "fetch", REPO, "--endpoint", hub, **env)
    assert done.code == 4
    assert "pytorch_model.bin of org/model is refused: the format pickle is not accepted" in done.err
    done = nodes.run("node", "fetch", REPO, "--endpoint", hub, "--exclude", "*.bin", **env)
    assert done.code == 4
    assert "org/model is refused: its licence is mit (contents.rules 1)" in done.err
    assert not list((nodes.root / "node" / "hub").rglob("snapshots/*"))
    assert not list((nodes.root / "node" / "hub").rglob("refs/*"))
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert not [each for each in asked if each["path"].endswith(("model.safetensors", "pytorch_model.bin"))]
    config.write_text(config.read_text().replace("apache-2.0", "mit"))
    nodes.ok("node", "fetch", REPO, "--endpoint", hub, "--exclude", "*.bin", **env)
    found = subprocess.run(["find", nodes.root / "node" / "hub", "-name", "*.bin"], capture_output=True, check=True)
    assert not found.stdout
