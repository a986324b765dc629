"""A right that is taken away ends at every kind of server without a restart: rules by a reload, machine tokens by
themselves."""

import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.eventually import PATIENCE
from tests.support.processes import Nodes, eventually

DEAD = "http://127.0.0.1:9"
RULES = """
[access]
tokens_file = "{tokens}"
[[access.rules]]
subjects = ["{subject}"]
verbs = ["read", "operate"]
"""


def status(url: str, token: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_changed_rule_and_a_revoked_token_count_at_every_server(nodes: Nodes, tmp_path: Path) -> None:
    config, model = tmp_path / "p2pmodel.toml", tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(os.urandom(1000))
    nodes.cache("mirror").mkdir(parents=True)
    env = {"P2PMODEL_CONFIG": str(config)}

    def allow(subject: str) -> None:
        config.write_text(RULES.format(tokens=tmp_path / "tokens.json", subject=subject))

    allow("token:ci")
    token = nodes.ok("node", "token", "issue", "ci", "-q", **env).out.strip()
    listen, json = ("--listen", "127.0.0.1:0"), "--json"
    coordinator = nodes.start("coordinator", "coordinator", *listen, json, **env)
    mirror = nodes.start("mirror", "mirror", "serve", *listen, json, **env)
    where = ("--control-listen", "127.0.0.1:0", "--hub-listen", "127.0.0.1:0", "--swarm-listen", "127.0.0.11:0")
    daemon = nodes.start("daemon", "daemon", *where, json, "--endpoint", DEAD, **env)
    seed = nodes.seed(model, "--as", "org/model", **env)
    asked = {
        "coordinator": f"{coordinator.ready()['url']}/metrics",
        "mirror": f"{mirror.ready()['endpoint']}/metrics",
        "control API": f"{daemon.ready()['url']}/metrics",
        "hub endpoint": f"{daemon.ready()['hub']}/api/models/org/none",
        "seeder": f"{seed.ready()['coordinator']}/catalog/torrents/{seed.ready()['info_hash']}.torrent",
    }

    def statuses() -> dict[str, int]:
        return {name: status(url, token) for name, url in asked.items()}

    def become(wanted: dict[str, int]) -> None:
        eventually(lambda: statuses() == wanted, PATIENCE, lambda: f"{statuses()}, not {wanted}")

    def reload() -> None:
        for server in (coordinator, mirror, daemon, seed):
            server.process.send_signal(signal.SIGHUP)

    allowed = statuses()
    assert not {401, 403} & set(allowed.values()), allowed
    allow("token:another")
    reload()
    become(dict.fromkeys(asked, 403))
    allow("token:ci")
    reload()
    become(allowed)
    nodes.ok("node", "token", "revoke", "ci", **env)
    become(dict.fromkeys(asked, 401))
