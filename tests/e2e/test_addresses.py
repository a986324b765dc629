"""Nodes that listen on all addresses are reached by others: on several networks, over IPv4 and IPv6, advertised."""

import os
from typing import Any

from tests.support.hosts import Hosts, hosts
from tests.support.hub_layout import write_snapshot
from tests.support.processes import Running

__all__ = ["hosts"]

REPO = "org/model"
FILES = {"config.json": b"{}", "model.safetensors": os.urandom(3 << 20)}
TRUST = {"P2PMODEL_SWARM_TRUST": "coordinator"}


def seeder(hosts: Hosts, *options: str, listen: str = "0.0.0.0", **env: str) -> Running:
    write_snapshot(hosts.cache("seeder"), REPO, FILES)
    listening = ("--listen", f"{listen}:6969", "--insecure-public", "--swarm-listen", f"{listen}:6881")
    return hosts.start("seeder", "seed", REPO, *listening, "--json", *options, **TRUST, **env)


def fetched(hosts: Hosts, node: str, coordinator: str, *options: str) -> dict[str, Any]:
    """Fetch on `node`, from its peers alone."""
    command = ("fetch", REPO, "--coordinator", coordinator, "--json", "--no-daemon")
    done = hosts.ok(node, *command, *options, **TRUST)
    report = done.json
    assert report["from_peers"] == sum(map(len, FILES.values()))
    return report


def test_a_seeder_on_all_addresses_is_reached_on_each_network(hosts: Hosts) -> None:
    hosts.add("seeder", 1, 77, 88)
    hosts.add("a", 2, 77)
    hosts.add("b", 3, 88)
    ready = seeder(hosts).ready()
    assert set(ready["coordinators"]) == {"http://10.77.0.1:6969", "http://10.88.0.1:6969"}
    for node, url in (("a", "http://10.77.0.1:6969"), ("b", "http://10.88.0.1:6969")):
        fetched(hosts, node, url)
        assert url in "".join(ready["magnet"].replace("%3A", ":").replace("%2F", "/"))


def test_hosts_without_ipv4_exchange_over_ipv6(hosts: Hosts) -> None:
    hosts.add("seeder", 1, 77, four=False)
    hosts.add("a", 2, 77, four=False)
    ready = seeder(hosts, listen="[::]").ready()
    assert ready["coordinator"] == "http://[fd77::1]:6969"
    fetched(hosts, "a", ready["coordinator"])


def test_others_fetch_from_a_daemon_on_all_addresses(hosts: Hosts) -> None:
    hosts.add("coordinator", 1, 77)
    hosts.add("seeder", 2, 77)
    hosts.add("a", 3, 77)
    url = "http://10.77.0.1:6969"
    hosts.start("coordinator", "coordinator", "--listen", "0.0.0.0:6969", "--insecure-public", "--json").ready()
    write_snapshot(hosts.cache("seeder"), REPO, FILES)
    hosts.ok("seeder", "seed", REPO, "--once", "--coordinator", url)
    where = {"P2PMODEL_COORDINATORS": url, "P2PMODEL_DAEMON_HUB_LISTEN": "off", **TRUST}
    daemon = hosts.start("seeder", "daemon", "--swarm-listen", "0.0.0.0:6881", "--json", **where)
    assert daemon.ready()["peers"] == ["10.77.0.2:6881"]
    hosts.ok("seeder", "fetch", REPO, **where)
    fetched(hosts, "a", url)


def test_peers_reach_a_node_where_it_advertises(hosts: Hosts) -> None:
    hosts.add("seeder", 1, 77, 88)
    hosts.add("holder", 2, 77, 88)
    hosts.add("a", 3, 77, 88)
    ready = seeder(hosts, "--advertise", "10.88.0.1", P2PMODEL_TRACKER_IP_FROM="10.77.0.0/24").ready()
    assert ready["coordinator"] == "http://10.88.0.1:6969"
    assert ready["peer"] == "10.88.0.1:6881"
    fetched(hosts, "a", "http://10.77.0.1:6969", "--advertise", "10.88.0.3:6881", "--swarm-listen", "0.0.0.0:6881")
