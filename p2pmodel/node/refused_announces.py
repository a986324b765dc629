"""Announces that a setting must make possible, noted once for each tracker: a wrong key, a certificate not trusted."""

from collections.abc import Callable

from p2pmodel.coordinator.client.transport import CA_SETTING
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.coordinator.tokens import MEMBER_SETTING, WRONG_KEY
from p2pmodel.core import notes


class RefusedAnnounces:
    """Watches failed announces."""

    def __init__(self, on_note: Callable[[str], None]) -> None:
        self._on_note = on_note
        self._noted: set[str] = set()

    def failed(self, tracker: str, message: str) -> None:
        """Take a failed announce to the URL `tracker`, with the tracker's reason."""
        name = public_name(tracker)
        if "certificate verify failed" in message and name not in self._noted:
            self._noted.add(name)
            text = f"the certificate of tracker {name} is not trusted; name its authority in {CA_SETTING}"
            self._on_note(notes.warning("announce_untrusted", text, coordinator=name))
        if WRONG_KEY in message and name not in self._noted:
            self._noted.add(name)
            text = f"coordinator {name} refuses announces: {WRONG_KEY}; check {MEMBER_SETTING}"
            self._on_note(notes.warning("announce_refused", text, coordinator=name))
