"""Which peers this node tried in vain to connect to, as a text for the user. Pure: time is passed in."""

ADVICE = "check that no firewall is between them, and the address at which each listens (swarm.listen, swarm.advertise)"
"""What helps."""
SETTLE = 1.0
"""Seconds after the first failure after which it is stated: others may still connect."""
FORGET = 60.0
"""Seconds after its last failure after which an address counts no longer."""
MOST = 64
"""Most addresses that are remembered."""
_GONE = "refused"
"""A peer that has left is at an address where the connection is refused."""


class PeerContacts:
    """The failed connections of one transfer."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[str, float]] = {}
        self._first: float | None = None

    def failed(self, address: str, reason: str, now: float) -> None:
        """No connection to the peer at `address`, for this reason."""
        self._first = now if self._first is None else self._first
        if address in self._failed or len(self._failed) < MOST:
            self._failed[address] = reason, now

    def unreachable(self, connected: int, now: float) -> str:
        """Which peers cannot be reached, while `connected` are connected; "" if there is nothing to state.

        Beside connected peers a refused connection is none: peers leave.
        """
        if self._first is None or now - self._first < SETTLE:
            return ""
        recent = {address: reason for address, (reason, at) in self._failed.items() if now - at < FORGET}
        if connected:
            recent = {address: reason for address, reason in recent.items() if _GONE not in reason}
        if not recent:
            return ""
        address, reason = next(iter(recent.items()))
        which = f"{len(recent)} of its peers" if connected else "any of its peers"
        return f"this node cannot connect to {which} ({address}: {reason.lower()})"
