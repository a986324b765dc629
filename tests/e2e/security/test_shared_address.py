"""A node is revoked at an address that an admitted node has, too: hosts of their own, real processes."""

import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import Hosts, hosts
from tests.support.processes import ROOT, Running, token_file

__all__ = ["hosts"]

REPO = "org/model"
SIZE = 8_000_000
URL = "http://10.88.0.1:6969"
SEEDER, OTHER, SHARED = "10.88.0.1", "10.88.0.3", "10.88.0.2"
TLS = 6883
SLOW = "400kB"
TRIES, SETTLED = 30, 15
"""Reports; the node tries to connect with every fifth."""


class Stubborn:
    """A node that goes on with its certificate after it was put out (`scripts.bench.rigs.stubborn`)."""

    def __init__(self, hosts: Hosts, host: str, *arguments: str) -> None:
        command = (sys.executable, "-m", "scripts.bench.rigs.stubborn", *arguments)
        self.running = hosts.program(host, *command, PYTHONPATH=str(ROOT))

    @property
    def lines(self) -> list[dict[str, Any]]:
        assert self.running.process.poll() is None, "".join(self.running.err)
        return [json.loads(line) for line in self.running.out]

    @property
    def is_out(self) -> bool:
        """Whether it was put out, and has got nothing for a while."""
        out = [line["payload"] for line in self.lines if line["withdrawn"]]
        return len(out) > SETTLED and len(set(out[-SETTLED:])) == 1

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1] if self.running.out else {"payload": 0}


def fetch(hosts: Hosts, node: str, host: str, token: Path, *options: str, **env: str) -> Running:
    """A node on `host` with a cache of its own."""
    member = {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(token), "HF_HUB_CACHE": str(hosts.root / node / "hub")}
    asks = ("--coordinator", URL, "--endpoint", "http://127.0.0.1:9", "--no-daemon", "--json", "--progress", "json")
    return hosts.start(host, "fetch", REPO, *asks, *options, **member | env)


@pytest.mark.needs("ip", "nft")
def test_a_node_that_is_revoked_at_a_shared_address_gets_nothing_and_the_one_that_stays_finishes(
    hosts: Hosts, tmp_path: Path
) -> None:
    for number, name in ((1, "seeder"), (2, "shared"), (3, "other")):
        hosts.add(name, number, 88)
    source, token, config = tmp_path / "model", token_file(tmp_path / "token"), tmp_path / "seeder.toml"
    source.mkdir()
    (source / "config.json").write_bytes(b"{}")
    (source / "model.safetensors").write_bytes(random.Random(1).randbytes(SIZE))
    made = hosts.ok("seeder", "ca", "init", "--folder", tmp_path / "ca", "--json").json
    private = f'[private]\nca_file = "{made["certificate"]}"\nca_key = "{made["key"]}"\n'
    config.write_text(private)
    config.chmod(0o600)
    listen = ("--listen", f"{SEEDER}:6969", "--swarm-listen", f"{SEEDER}:6881")
    options = ("--as", REPO, "--private", "--token-file", token, "--config", config)
    seeder = hosts.start("seeder", "seed", source, *options, *listen, "--json")
    ready = seeder.ready()

    holder = fetch(hosts, "holder", "other", token, "--seed-time", "600")
    holder.ready()
    folder = tmp_path / "stolen"
    folder.mkdir()
    peers = (f"{SEEDER}:{TLS}", f"{OTHER}:{TLS}")
    gone = Stubborn(
        hosts, "shared", URL, str(hosts.publish_token), str(ready["info_hash"]), str(folder), SHARED, *peers
    )
    stays = fetch(hosts, "stays", "shared", token, "--download-limit", SLOW)
    hosts.until(lambda: gone.last["payload"] > 0, "the node that will be revoked gets bytes")
    hosts.until(lambda: int(stays.progress().get("from_peers", 0)) > 0, "and so does the one that stays")

    config.write_text(f'{private}revoked = ["{hosts.publish_token.stem}"]\n')
    seeder.process.send_signal(signal.SIGHUP)
    hosts.until(lambda: gone.is_out, "it is put out, and gets nothing")
    payload, lines = gone.last["payload"], len(gone.lines)
    assert payload < SIZE, "in mid-transfer"
    done = stays.wait()
    assert done.code == 0, done.err[-2000:]
    assert Path(done.json["path"], "model.safetensors").stat().st_size == SIZE

    late = fetch(hosts, "late", "shared", token, "--swarm-listen", f"{SHARED}:0").wait()
    assert late.code == 0, late.err[-2000:]
    assert late.json["from_peers"] == SIZE + 2
    hosts.until(lambda: len(gone.lines) >= lines + TRIES, "it has tried again and again")
    assert gone.last["payload"] == payload
    assert "a node at an address of this node was put out" in done.err
