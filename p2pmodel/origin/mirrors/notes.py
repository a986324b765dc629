"""One-line notes for the user about mirrors, limited in frequency."""

from collections.abc import Callable

from p2pmodel.core.notes import Note
from p2pmodel.origin.clock import Clock

_EVERY = 15.0


class MirrorNotes:
    """Drops a note if one with the same key was passed on in the last `_EVERY` seconds."""

    def __init__(self, on_note: Callable[[str], None], clock: Clock) -> None:
        self._on_note = on_note
        self._clock = clock
        self._last: dict[tuple[str, ...], float] = {}

    def add(self, line: str, *key: str) -> None:
        """Pass `line` on. Notes about the same thing share a `key`, even if their details differ."""
        now = self._clock.now()
        self._last = {k: when for k, when in self._last.items() if now - when < _EVERY}
        if key not in self._last:
            self._last[key] = now
            self._on_note(Note.of(line))
