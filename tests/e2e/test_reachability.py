"""Nodes that no peer can connect to, and nodes that reach none, are told so, with what to set."""

import json
import os
import re
import subprocess
import sys
from typing import Any

from tests.support.hosts import Hosts, hosts
from tests.support.hub_layout import write_snapshot
from tests.support.processes import Running, eventually

__all__ = ["hosts"]

REPO = "org/model"
FILES = {"config.json": b"{}", "model.safetensors": os.urandom(6 << 20)}
URL = "http://10.77.0.1:6969"
CLOSED = "tcp flags & (syn|ack) == syn drop;"
"""What a host that accepts no connections drops."""


def waits(running: Running, text: str) -> None:
    eventually(lambda: re.search(text, "".join(running.err)) is not None, 60, lambda: "".join(running.err))


def seeder(hosts: Hosts, *options: str) -> dict[str, Any]:
    hosts.add("seeder", 1, 77)
    write_snapshot(hosts.cache("seeder"), REPO, FILES)
    listen = ("--listen", "10.77.0.1:6969", "--insecure-public", "--swarm-listen", "10.77.0.1:6881")
    return hosts.start("seeder", "seed", REPO, *listen, "--json", *options).ready()


def fetching(hosts: Hosts, node: str, *options: str) -> Running:
    return hosts.start(node, "fetch", REPO, "--coordinator", URL, "--no-daemon", "--json", *options)


def test_nodes_with_a_firewall_between_them_say_so(hosts: Hosts) -> None:
    seeder(hosts, "--upload-limit", "200000")
    for number, node in ((2, "a"), (3, "b")):
        hosts.add(node, number, 77)
    hosts.firewall("a", "ip saddr 10.77.0.3 drop;")
    one, other = fetching(hosts, "a"), fetching(hosts, "b")
    said = r"cannot connect to .* \(10\.77\.0\.[23]:6881: timed out\)"
    # The node that announced first gets the address of the other with its next announce.
    eventually(lambda: bool(re.search(said, "".join([*one.err, *other.err]))), 60, lambda: "".join(other.err))
    assert "peers cannot connect" not in "".join([*one.err, *other.err]), "the coordinator reaches both"


def test_a_holder_that_accepts_no_connections_feeds_a_newcomer(hosts: Hosts) -> None:
    for number, host in enumerate(("coordinator", "holder", "a"), 1):
        hosts.add(host, number, 77)
    hosts.start("coordinator", "coordinator", "--listen", "10.77.0.1:6969", "--insecure-public", "--json").ready()
    write_snapshot(hosts.cache("holder"), REPO, FILES)
    listen = ("--listen", "10.77.0.2:6970", "--insecure-public", "--coordinator", URL)
    holder = hosts.start("holder", "seed", REPO, *listen)
    waits(holder, f"coordinator {URL}: published")
    hosts.firewall("holder", CLOSED)
    done = fetching(hosts, "a").wait()
    assert done.code == 0, done.err
    assert done.json["from_peers"] == sum(map(len, FILES.values()))


def test_a_node_that_accepts_no_connections_is_told_so(hosts: Hosts) -> None:
    seeder(hosts)
    hosts.add("a", 2, 77)
    hosts.firewall("a", CLOSED)
    running = fetching(hosts, "a", "--seed-time", "30")
    running.ready()
    waits(running, r"peers cannot connect to this client at 10\.77\.0\.2:6881 \(timed out\)")
    read = f"import urllib.request as r; print(r.urlopen('{URL}/catalog').read().decode())"
    command = hosts.inside("seeder", [sys.executable, "-c", read])
    catalog = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert catalog["torrents"][0]["unreachable"] == ["10.77.0.2:6881 (timed out)"]
