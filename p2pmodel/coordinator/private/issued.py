"""The certificates of one private swarm that are still valid, and which of them are withdrawn.

TLS knows no withdrawal, and hosts share addresses. So members are told the numbers of withdrawn certificates, which
sources compare with that of each client. A certificate outlives its node's connection: nodes that have left are judged
on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from p2pmodel.coordinator.private.access import NodeIdentity


@dataclass(slots=True)
class _NodeCertificate:
    member: str
    node: NodeIdentity
    until: float
    left: bool = False
    withdrawn: bool = False


class IssuedCertificates:
    """By serial number. Members have names that the caller chooses."""

    def __init__(self) -> None:
        self._known: dict[str, _NodeCertificate] = {}

    def add(self, serial: str, member: str, node: NodeIdentity, until: float) -> None:
        """A certificate was issued to a node; it is valid until then."""
        self._known[serial] = _NodeCertificate(member, node, until)

    def leave(self, member: str) -> None:
        """A node's connection has ended: from now on it is judged here."""
        for issued in self._known.values():
            issued.left |= issued.member == member

    def withdraw(self, member: str) -> None:
        """A node was put out."""
        for issued in self._known.values():
            issued.withdrawn |= issued.member == member

    def judge(self, refused: Callable[[NodeIdentity], bool]) -> None:
        """Withdraw the certificates of nodes that have left and that are `refused` now."""
        for issued in self._known.values():
            issued.withdrawn = issued.withdrawn or (issued.left and refused(issued.node))

    def withdrawn(self, now: float) -> tuple[str, ...]:
        """The numbers of withdrawn certificates that are still valid, sorted."""
        self._known = {serial: issued for serial, issued in self._known.items() if issued.until > now}
        return tuple(sorted(serial for serial, issued in self._known.items() if issued.withdrawn))

    def __bool__(self) -> bool:
        return bool(self._known)
