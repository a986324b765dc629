"""A private swarm of real processes: admitted nodes get the snapshot, revoked ones are cut off, others get nothing."""

import random
import signal
import urllib.error
import urllib.request
from pathlib import Path

from p2pmodel.core.network.tokens import announce_key
from tests.support.eventually import PATIENCE
from tests.support.processes import Nodes, token_file

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
SIZE = 6_000_000
SLOW = "200kB"
REVOKED = "127.0.0.42"


def answer(url: str, token: str = "") -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as found:
            return int(found.status), found.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def serves_nothing(endpoint: str, commit: str, tokens: list[str], payload: bytes) -> None:
    """With none of the tokens, and without one, `endpoint` gives a byte of the snapshot, or the list of its files."""
    targets = [f"{REPO}/resolve/{name}/model.safetensors" for name in (commit, "main")]
    targets += [f"api/models/{REPO}/revision/{commit}", f"api/models/{REPO}/tree/{commit}", f"api/models/{REPO}/refs"]
    for token in ("", *tokens):
        for target in targets:
            status, body = answer(f"{endpoint}/{target}", token)
            assert status in (401, 403, 404), (target, status, body[:200])
            assert payload[:64] not in body
            assert b"model.safetensors" not in body.replace(target.encode(), b"")


def test_a_revoked_node_is_cut_off_and_an_admitted_one_finishes(nodes: Nodes, tmp_path: Path) -> None:
    source, token, config = tmp_path / "model", token_file(tmp_path / "token"), tmp_path / "seeder.toml"
    source.mkdir()
    (source / "config.json").write_bytes(b"{}")
    (source / "model.safetensors").write_bytes(random.Random(1).randbytes(SIZE))
    made = nodes.ok("seeder", "ca", "init", "--folder", tmp_path / "ca", "--json").json
    private = f'[private]\nrepos = ["org/*"]\nca_file = "{made["certificate"]}"\nca_key = "{made["key"]}"\n'
    config.write_text(private)
    config.chmod(0o600)
    seeder = nodes.seed(source, "--as", REPO, "--token-file", token, "--config", config)
    ready = seeder.ready()
    url, commit = str(ready["coordinator"]), str(ready["commit"])
    member = {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(token), "P2PMODEL_PUBLISH_TOKEN_FILE": ""}
    asks = (REPO, "--coordinator", url, "--endpoint", DEAD)

    # Over HTTP there is nothing, with and without the tokens that members have.
    secret, payload = token.read_text().strip(), (source / "model.safetensors").read_bytes()
    tokens = [secret, nodes.publish_token.read_text().strip(), announce_key(secret)]
    serves_nothing(f"{url}/source", commit, tokens, payload)

    leaving = nodes.fetch("gone", *asks, "--download-limit", SLOW, address=REVOKED, **member)
    nodes.until(lambda: int(leaving.progress().get("from_peers", 0)) > 0, "the first pieces came")
    config.write_text(f'{private}revoked = ["{REVOKED}"]\n')
    seeder.process.send_signal(signal.SIGHUP)
    gone = leaving.wait()
    assert gone.code == 4, gone.err[-2000:]
    assert "has put this node out" in gone.err
    assert not nodes.cache("gone").joinpath("models--org--model", "refs").exists()

    again = nodes.fetch("gone", *asks, address=REVOKED, **member).wait()
    assert (again.code, "this node is revoked" in again.err) == (4, True), again.err[-2000:]
    done = nodes.fetch("node", *asks, address="127.0.0.43", **member).wait()
    assert done.code == 0, done.err[-2000:]
    assert done.json["from_peers"] == SIZE + 2
    assert Path(done.json["path"], "model.safetensors").read_bytes() == payload

    # A mirror on the cache of an admitted node has rights of its own: what members have is none.
    own = token_file(tmp_path / "mirror.token")
    endpoint, _ = nodes.mirror("--token-file", str(own), node="node")
    serves_nothing(endpoint, commit, tokens, payload)
    assert answer(f"{endpoint}/{REPO}/resolve/{commit}/model.safetensors", own.read_text().strip())[1] == payload
