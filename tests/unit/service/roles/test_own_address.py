"""The URLs of a listener, as other machines reach it."""

from pathlib import Path

import pytest

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.service.roles import own_address as module
from p2pmodel.service.roles.own_address import reachable_urls

ALL = "http://0.0.0.0:6969"


def urls(bound: str, *, http: tuple[str, ...] = (), swarm: tuple[str, ...] = ()) -> tuple[str, ...]:
    advertised = {"http": HttpSettings(advertise=http), "swarm": SwarmSettings(advertise=swarm)}
    return reachable_urls(bound, Settings(cache_dir=Path("cache"), mirrors=(), **advertised))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {"0.0.0.0": ("10.0.0.7", "fd00::7")}
    monkeypatch.setattr(module, "reachable_hosts", lambda host: hosts.get(host, (host,)))


def test_they_are_those_of_the_machine_or_as_advertised() -> None:
    assert urls("http://10.0.0.9:1") == ("http://10.0.0.9:1",)
    assert urls(ALL) == ("http://10.0.0.7:6969", "http://[fd00::7]:6969")
    advertised = urls(ALL, http=("hub.test:80", "203.0.113.7"), swarm=("10.9.9.9",))
    assert advertised == ("http://hub.test:80", "http://203.0.113.7:6969")


def test_the_port_for_peers_is_no_port_of_a_server() -> None:
    assert urls(ALL, swarm=("203.0.113.7:7777",)) == ("http://203.0.113.7:6969",)
    assert urls("http://127.0.0.1:1", swarm=("203.0.113.7",)) == ("http://127.0.0.1:1",)
    assert urls("http://127.0.0.1:1", http=("203.0.113.7",)) == ("http://203.0.113.7:1",)
