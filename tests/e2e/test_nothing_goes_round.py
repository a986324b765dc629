"""A machine from which only the daemon's endpoint can be reached: every client finishes, and sends no packet elsewhere.

The hub behind the daemon announces a chunk store (Xet), and redirects files to another address, as the real one does.
Xet and telemetry are left on in the clients.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench.rigs import namespaces
from tests.support import engine_requests
from tests.support.hosts import Hosts, hosts
from tests.support.processes import PATIENCE, ROOT, served, token_file
from tests.support.tiny_models import dense

__all__ = ["dense", "hosts"]

pytestmark = [pytest.mark.needs("nft", "ip", "tc"), pytest.mark.slow]

REPO = "org/tiny-vl"
CDN = "http://10.1.0.9"
LOAD = """
import json, sys
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
AutoConfig.from_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(sys.argv[1])
AutoModelForImageTextToText.from_pretrained(sys.argv[1])
print(json.dumps("loaded"))
"""


class Client:
    """The machine `client`, and the counter of its packets to elsewhere."""

    def __init__(self, hosts: Hosts, endpoint: str, token: str) -> None:
        self._hosts = hosts
        self._env = {
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",  # as `p2pmodel env` has it: `hf` would ask PyPI
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        address, port = endpoint.removeprefix("http://").split(":")
        self._nft(
            "flush ruleset\ntable inet test { counter elsewhere {}\n chain out { type filter hook output priority 0;"
            f' ip daddr {address} tcp dport {port} accept; counter name "elsewhere" drop; }}\n}}\n'
        )

    def run(self, home: Path, *command: str) -> str:
        """Run a command with a home of its own; its stdout."""
        home.mkdir()
        before = self.elsewhere
        done = subprocess.run(
            self._hosts.inside("client", list(command)),
            env=self._env | {"HOME": str(home), "HF_HOME": str(home)},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}\n{done.stdout}"
        assert self.elsewhere == before, command
        return done.stdout

    @property
    def elsewhere(self) -> int:
        """Packets that it sent to anything but the endpoint."""
        command = self._hosts.inside("client", ["nft", "-j", "list", "counters"])
        listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["nftables"]
        return next(int(each["counter"]["packets"]) for each in listed if "counter" in each)

    def _nft(self, rules: str) -> None:
        subprocess.run(self._hosts.inside("client", ["nft", "-f", "-"]), input=rules, text=True, check=True)


def test_nothing_goes_round_the_endpoint(hosts: Hosts, dense: Path, tmp_path: Path) -> None:
    hosts.add("hub", 1, 1, six=False)
    hosts.add("node", 2, 1, 2, six=False)
    hosts.add("client", 3, 2, six=False)
    namespaces.ip("-n", hosts.name("hub"), "address", "add", "10.1.0.9/24", "dev", "eth1")
    no_ipv6 = ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]
    subprocess.run(hosts.inside("client", no_ipv6), check=True)
    namespaces.ip("-n", hosts.name("client"), "route", "add", "default", "via", "10.2.0.2")
    faults = ("redirect@*.safetensors",)
    where = ("--host", "0.0.0.0", "--xet", "--redirect-to", f"{CDN}:8000", "--port", "8000")
    _, hub_log = hosts.hub(dense, *faults, repo=REPO, options=where, node="hub")
    secret = token_file(tmp_path / "token")
    running = hosts.start(
        *("node", "daemon", "--hub-listen", "10.2.0.2:0", "--swarm-listen", "10.2.0.2:0", "--token-file", secret),
        *("--endpoint", "http://10.1.0.1:8000", "--json"),
        P2PMODEL_ORIGIN_ALLOWED_NETWORKS="10.1.0.0/24",
    )
    client = Client(hosts, str(running.ready()["hub"]), secret.read_text().strip())
    sizes = {path.name: path.stat().st_size for path in dense.glob("*.safetensors")}
    hf = str(Path(sys.executable).parent / "hf")
    client.run(tmp_path / "hf", hf, "download", REPO, "--quiet")
    assert json.loads(client.run(tmp_path / "load", sys.executable, "-c", LOAD, REPO).splitlines()[-1]) == "loaded"
    for engine in ("vllm", "llama.cpp"):
        program = str(engine_requests.__file__)
        out = client.run(tmp_path / engine, sys.executable, program, engine, REPO, str(tmp_path / engine))
        got = json.loads(out.splitlines()[-1])
        assert {name: got[name] for name in sizes} == sizes, engine
    assert client.elsewhere == 0
    assert {r["path"].split("/")[1] for r in served(hub_log) if r["method"] == "GET" and r["sent"]} >= {"presigned"}
    with pytest.raises(AssertionError):
        client.run(tmp_path / "control", "curl", "-sf", "-m", "2", "http://10.1.0.1:8000/")
    assert client.elsewhere > 0, "the counter counts"
    assert running.stop().code == 0
