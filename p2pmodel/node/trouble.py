"""Why a node gets nothing, in words for its user: failed announces, and peers without a connection."""

import time
from collections.abc import Callable

from p2pmodel.coordinator.client.transport import CA_SETTING
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.coordinator.tracker.announce_texts import UNREACHABLE, advice_in
from p2pmodel.core import notes
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.urls import without_announce_keys
from p2pmodel.swarm.engine import Event, PeerUnreachable, TrackerAnswered, TrackerFailed, TrackerWarned

_UNTRUSTED = "certificate verify failed"


class AnnounceTrouble:
    """Watches failed announces, and warnings in the answers to announces."""

    def __init__(self, on_note: Callable[[str], None]) -> None:
        self._on_note = on_note
        self._noted: set[tuple[str, str]] = set()
        self._warned: dict[str, str] = {}
        self._unreachable: dict[str, str] = {}

    @property
    def unreachable(self) -> str:
        """The last answer of a tracker that peers cannot connect to this node; "" without one."""
        return next(iter(self._unreachable.values()), "")

    def answered(self, tracker: str) -> None:
        """Take a tracker's answer; its warnings came before."""
        warning = self._warned.pop(tracker, "")
        if warning:
            self._unreachable[tracker] = warning
        else:
            self._unreachable.pop(tracker, None)

    def failed(self, tracker: str, message: str) -> None:
        """Take a failed announce to the URL `tracker`, with the tracker's reason."""
        name = public_name(tracker)
        if _UNTRUSTED in message and (name, _UNTRUSTED) not in self._noted:
            self._noted.add((name, _UNTRUSTED))
            text = f"the certificate of tracker {name} is not trusted; name its authority in {CA_SETTING}"
            self._on_note(notes.warning("announce_untrusted", text, coordinator=name))
        self._note("announce_refused", "refuses announces", tracker, message)

    def warned(self, tracker: str, message: str) -> None:
        """Take a warning in the answer to an announce."""
        if UNREACHABLE in message:
            text = without_announce_keys(message[message.index(UNREACHABLE) :])
            said = printable(text.partition(";")[0], 200)
            self._warned[tracker] = said.replace("this client", "this node")
        self._note("announce_warning", "warns", tracker, message)

    def _note(self, event: str, what: str, tracker: str, message: str) -> None:
        found, name = advice_in(message), public_name(tracker)
        if found is None or (name, found[0]) in self._noted:
            return
        text, advice = found
        self._noted.add((name, text))
        said = printable(without_announce_keys(message[message.index(text) :]), 300)
        self._on_note(notes.warning(event, f"coordinator {name} {what}: {said}; {advice}", coordinator=name))


ADVICE = "check that no firewall is between them, and the address at which each listens (swarm.listen, swarm.advertise)"
"""The advice with a failed connection."""
SETTLE = 1.0
"""Seconds after the first failure after which it is stated: others may still connect."""
FORGET = 60.0
"""Seconds after its last failure after which an address counts no longer."""
MOST = 64
"""Most addresses that are remembered."""
_GONE = "refused"
"""A peer that has left is at an address where the connection is refused."""


class PeerContacts:
    """The failed connections of one transfer, as a text for the user. Pure: time is passed in."""

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


class PeerTrouble:
    """Takes the events of a torrent, and states once each what the user can mend. `connected`: the number of peers."""

    def __init__(
        self,
        on_note: Callable[[str], None],
        *,
        connected: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_note = on_note
        self._connected = connected
        self._clock = clock
        self._announces = AnnounceTrouble(on_note)
        self._contacts = PeerContacts()
        self._noted = False

    def handle(self, event: Event) -> None:
        """Take an event about trackers or connections; others are ignored."""
        match event:
            case TrackerFailed(url, message):
                self._announces.failed(url, message)
            case TrackerWarned(url, message):
                self._announces.warned(url, message)
            case TrackerAnswered(url):
                self._announces.answered(url)
            case PeerUnreachable(address, reason):
                self._contacts.failed(address, reason, self._clock())

    def unreachable(self, *, missing: bool) -> str:
        """Which peers cannot connect to this node, or it to them while pieces are `missing`; "" without trouble."""
        out = self._contacts.unreachable(self._connected(), self._clock()) if missing else ""
        return "; ".join(filter(None, (out, self._announces.unreachable)))

    def look(self) -> None:
        """Note once that this node cannot connect to its peers."""
        found = "" if self._noted else self._contacts.unreachable(self._connected(), self._clock())
        if found:
            self._noted = True
            self._on_note(notes.warning("peers_unreachable", f"{found}; {ADVICE}"))
