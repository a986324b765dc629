"""Trouble of a node with its peers: what trackers report about its announces, and peers without a connection."""

import time
from collections.abc import Callable

from p2pmodel.core import notes
from p2pmodel.node.trouble.announces import AnnounceTrouble
from p2pmodel.node.trouble.contacts import ADVICE, PeerContacts
from p2pmodel.swarm.engine import Event, PeerUnreachable, TrackerAnswered, TrackerFailed, TrackerWarned


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
