"""Trouble that a coordinator reports about this node's announces: noted once each, with what helps."""

from collections.abc import Callable

from p2pmodel.coordinator.client.transport import CA_SETTING
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.coordinator.tracker.announce_texts import UNREACHABLE, advice_in
from p2pmodel.core import notes
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.urls import without_announce_keys

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
        """That peers cannot connect to this node, by the last answer of a tracker that says so."""
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
