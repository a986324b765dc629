"""Authorities and certificates of private swarms, for tests."""

import datetime as dt

from p2pmodel.swarm.engine import SwarmCertificate
from p2pmodel.trust.certificates import Authority, NodeKey

NOW = dt.datetime.now(dt.UTC)


def new_authority(name: str = "test") -> Authority:
    """An authority of its own."""
    return Authority.new(name, now=NOW - dt.timedelta(days=1), days=3)[0]


def certificate_for(
    authority: Authority, commit: str, *, now: dt.datetime = NOW, seconds: float = 3600
) -> SwarmCertificate:
    """A certificate for the swarm of `commit`, with a new key."""
    node = NodeKey.new()
    pem = authority.sign(node.request.encode(), "node", [commit], now=now, seconds=seconds)
    return SwarmCertificate(pem.decode(), node.key)
