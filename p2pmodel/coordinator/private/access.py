"""Which node may have which snapshot: the question that a private swarm asks, and the coordinator's own answer.

The own answer admits every member, as far as its settings do not revoke it. What a member is, the coordinator's
credentials have decided before.
"""

import fnmatch
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from p2pmodel.core.content.names import RepoId
from p2pmodel.core.network.addresses import parsed_address


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A node as its coordinator knows it. `address`: where its request comes from; `claimed`: further addresses that it
    names as its own. `certificate`: the name in its client certificate; `publisher`: the name
    of the publisher with the token that it has sent. Both are "" without one. `name`: what tells it from other members;
    "" for one with the token of all."""

    address: str
    claimed: tuple[str, ...] = ()
    certificate: str = ""
    publisher: str = ""
    name: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them, in one spelling; those of IPv4 inside IPv6 as such."""
        known = (parsed_address(each) for each in (self.address, *self.claimed))
        return tuple(dict.fromkeys(str(each) for each in known if each is not None))


class SnapshotAccess(Protocol):
    """Decides about one snapshot. It is asked again and again while a node is in the swarm."""

    def refusal(self, node: NodeIdentity, repo: RepoId, commit: str) -> str:
        """Why `node` may not have the snapshot; "" if it may."""


class RevokedNodes:
    """Admits all nodes but those that `revoked` names: by address, network, or a pattern of a name."""

    def __init__(self, revoked: Sequence[str] = ()) -> None:
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._patterns: list[str] = []
        self.change(revoked)

    def change(self, revoked: Sequence[str]) -> None:
        """Refuse the nodes that `revoked` names from now on, and no others."""
        networks, patterns = [], []
        for text in revoked:
            try:
                networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                patterns.append(text)
        self._networks, self._patterns = networks, patterns

    def refusal(self, node: NodeIdentity, repo: RepoId, commit: str) -> str:  # noqa: ARG002 - the same for all
        """As `SnapshotAccess.refusal`."""
        names = [name for name in (node.certificate, node.publisher) if name]
        if any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self._patterns):
            return "this node is revoked"
        addresses = [parsed_address(text) for text in (node.address, *node.claimed)]
        if None in addresses:
            return "the address of this node is unknown"
        if any(address in network for address in addresses for network in self._networks):
            return "this node is revoked"
        return ""
