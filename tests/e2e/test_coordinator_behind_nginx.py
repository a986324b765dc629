"""A coordinator behind nginx, with the configuration of docs/cluster.md: peers are listed at their own addresses."""

import os
import re
import subprocess

import pytest

from tests.support.hosts import Hosts, hosts
from tests.support.hub_layout import write_snapshot
from tests.support.processes import ROOT, Running, eventually

__all__ = ["hosts"]

pytestmark = pytest.mark.needs("nginx")

REPO = "org/model"
FILES = {"config.json": b"{}", "model.safetensors": os.urandom(3 << 20)}
URL = "http://10.77.0.1:8080/p2p"


def nginx(hosts: Hosts, *, upgrade: bool = True) -> None:
    """Run nginx on the coordinator's host, with the location of the guide."""
    found = re.search(r"```nginx\n(location /p2p/ .*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)
    assert found
    location = "\n".join(line for line in found[1].splitlines() if upgrade or "pgrade" not in line)
    folder = hosts.root / "nginx"
    folder.mkdir()
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    config = f"""daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error; user root;
events {{ worker_connections 512; }}
http {{ access_log off; client_body_temp_path {folder}/body; {temporary}
server {{ listen 10.77.0.1:8080; {location} }} }}"""
    (folder / "nginx.conf").write_text(config)
    command = hosts.inside("coordinator", ["nginx", "-e", f"{folder}/error", "-c", f"{folder}/nginx.conf"])
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    hosts.on_exit(process)


def cluster(hosts: Hosts, **env: str) -> Running:
    for number, host in enumerate(("coordinator", "seeder", "a"), 1):
        hosts.add(host, number, 77)
    served = hosts.start("coordinator", "coordinator", "--public-url", URL, "--json", **env)
    served.ready()
    return served


def test_peers_behind_a_trusted_proxy_exchange(hosts: Hosts) -> None:
    cluster(hosts, P2PMODEL_HTTP_TRUSTED_PROXIES="127.0.0.1")
    nginx(hosts)
    write_snapshot(hosts.cache("seeder"), REPO, FILES)
    # Both nodes listen for peers at port 6881: at one address the second would replace the first.
    hosts.ok("seeder", "seed", REPO, "--once", "--coordinator", URL)
    seeding = hosts.start("seeder", "fetch", REPO, "--coordinator", URL, "--no-daemon", "--seed-time", "600", "--json")
    seeding.ready()
    done = hosts.ok("a", "fetch", REPO, "--coordinator", URL, "--no-daemon", "--json")
    assert done.json["from_peers"] == sum(map(len, FILES.values()))
    assert "WebSocket" not in done.err


def test_without_trust_and_without_websockets_both_sides_say_what_to_set(hosts: Hosts) -> None:
    served = cluster(hosts)
    nginx(hosts, upgrade=False)
    write_snapshot(hosts.cache("seeder"), REPO, FILES)
    hosts.ok("seeder", "seed", REPO, "--once", "--coordinator", URL)
    waiting = hosts.start("a", "fetch", REPO, "--coordinator", URL, "--no-daemon")
    for what in ("http.trusted_proxies", "proxy_set_header Upgrade $http_upgrade"):
        eventually(lambda text=what: text in "".join(waiting.err), 60, lambda: "".join(waiting.err))  # type: ignore[misc]
        eventually(lambda text=what: text in "".join(served.err), 60, lambda: "".join(served.err))  # type: ignore[misc]
    waiting.stop()
    assert "".join(waiting.err).count("passes on no WebSocket") == 1
