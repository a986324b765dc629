"""The certificates of one private swarm that are still valid, and which of them are withdrawn.

TLS knows no withdrawal, and hosts share addresses. So members are told the numbers of withdrawn certificates, which
sources compare with that of each client, and the addresses at which such a certificate may be presented, at which no
node connects in the swarm. A certificate outlives its node's connection, and a restart of the coordinator: nodes that
have left are judged on.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from p2pmodel.coordinator.private.access import NodeIdentity
from p2pmodel.core.network.addresses import is_ip

MOST_RESTORED = 50_000
"""Certificates of one swarm that a restarted coordinator knows again, the latest."""

Reason = Literal["", "revoked", "lost"]
"""Why a certificate is withdrawn: "" if it is not. "revoked": its node is, until it is no longer; "lost": its node has
lost its right otherwise."""


@dataclass(slots=True)
class _NodeCertificate:
    member: str
    node: NodeIdentity
    until: float
    key: str = ""
    """The digest of the certificate request. The same process sends the same request again."""
    left: bool = False
    withdrawn: Reason = ""
    restored: bool = False
    """Whether it is of a node that has not come back since this coordinator was restarted."""


class IssuedCertificates:
    """By serial number. Members have names that the caller chooses. `changes` counts what a restart must not lose."""

    def __init__(self) -> None:
        self._known: dict[str, _NodeCertificate] = {}
        self._by_key: dict[str, list[_NodeCertificate]] = {}
        self._any_withdrawn = False
        self.changes = 0

    def add(self, serial: str, member: str, node: NodeIdentity, until: float, *, request: str = "") -> None:
        """A certificate was issued to a node; it is valid until then."""
        self._put(serial, _NodeCertificate(member, node, until, _digest(request)))
        self.changes += 1

    def leave(self, member: str) -> None:
        """A node's connection has ended: from now on it is judged here."""
        for issued in self._known.values():
            issued.left |= issued.member == member

    def come_back(self, member: str, node: NodeIdentity, request: str) -> None:
        """A node is in, as `member`. Certificates for the same request are its own, and no longer withdrawn; nor are
        those that a node of the same name had lost the right to."""
        for issued in self._by_key.get(_digest(request), ()):
            issued.member, issued.left, issued.restored = member, False, False
            self._withdraw(issued, "")
        for issued in self._known.values() if self._any_withdrawn and node.name else ():
            if issued.withdrawn == "lost" and issued.node.name == node.name:
                self._withdraw(issued, "")

    def withdraw(self, member: str, reason: Reason) -> None:
        """A node was put out."""
        for issued in self._known.values():
            if issued.member == member:
                self._withdraw(issued, reason)

    def refuse(self, address: str) -> None:
        """A client at `address` was refused: it may be a node that had a certificate before a restart."""
        for issued in self._known.values():
            if issued.restored and not issued.withdrawn and address in issued.node.addresses:
                self._withdraw(issued, "lost")

    def judge(self, refused: Callable[[NodeIdentity], bool]) -> None:
        """Withdraw the certificates of nodes that have left and that are `refused` now. Those of nodes that are revoked
        no longer are not withdrawn any more."""
        for issued in self._known.values():
            if issued.withdrawn == "revoked":
                if not refused(issued.node):
                    self._withdraw(issued, "")
                    issued.left = True
            elif issued.left and not issued.withdrawn and refused(issued.node):
                self._withdraw(issued, "revoked")

    def withdrawn(self, now: float) -> tuple[str, ...]:
        """The numbers of withdrawn certificates that are still valid, sorted."""
        known = {serial: issued for serial, issued in self._known.items() if issued.until > now}
        if len(known) < len(self._known):
            self._known, self._by_key = {}, {}
            for serial, issued in known.items():
                self._put(serial, issued)
        found = tuple(sorted(serial for serial, issued in known.items() if issued.withdrawn))
        self._any_withdrawn = bool(found)
        return found

    def shut(self, now: float) -> Mapping[str, float]:
        """The addresses at which a withdrawn certificate may be presented, and until when it is valid."""
        found: dict[str, float] = {}
        for issued in self._known.values() if self._any_withdrawn else ():
            if issued.withdrawn and issued.until > now:
                found |= {each: max(found.get(each, issued.until), issued.until) for each in issued.node.addresses}
        return found

    def plain(self, ahead: float) -> list[dict[str, Any]]:
        """As JSON values. `ahead`: what the clock of the reader shows more than that of this object."""
        return [
            {
                "serial": serial,
                "addresses": list(issued.node.addresses),
                "certificate": issued.node.certificate,
                "publisher": issued.node.publisher,
                "name": issued.node.name,
                "key": issued.key,
                "until": issued.until + ahead,
                "withdrawn": issued.withdrawn,
            }
            for serial, issued in self._known.items()
        ]

    def restore(self, rows: Iterable[Mapping[str, Any]], behind: float, now: float) -> None:
        """Know what an earlier coordinator has issued. `behind`: what its clock showed more. Raises ValueError or
        KeyError."""
        for row in list(rows)[-MOST_RESTORED:]:
            own, *claimed = (str(each) for each in row["addresses"] if is_ip(str(each)))
            names = (str(row[each]) for each in ("certificate", "publisher", "name"))
            node = NodeIdentity(own, tuple(claimed), *names)
            reason: Reason = row["withdrawn"] if row["withdrawn"] in ("revoked", "lost") else ""
            until = float(row["until"]) - behind
            if until > now:
                issued = _NodeCertificate("", node, until, str(row["key"]), left=True, restored=True)
                self._put(str(row["serial"]), issued)
                self._withdraw(issued, reason)

    def _put(self, serial: str, issued: _NodeCertificate) -> None:
        self._known[serial] = issued
        if issued.key:
            self._by_key.setdefault(issued.key, []).append(issued)

    def _withdraw(self, issued: _NodeCertificate, reason: Reason) -> None:
        self.changes += issued.withdrawn != reason
        self._any_withdrawn |= bool(reason)
        issued.withdrawn = reason

    def __bool__(self) -> bool:
        return bool(self._known)


def _digest(request: str) -> str:
    """The digest of a request, which tells requests apart; "" for none."""
    return hashlib.sha256(request.encode()).hexdigest() if request else ""
