"""The texts that end an answer: found in a stream of any chunking, and cut off with all that follows."""

from collections.abc import Sequence

from p2pmodel.loading.answers.think_tags import overlap


class StopTexts:
    """Passes fed text on up to the first of `stops`; a possible beginning of one is held until the next call."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> str:
        """What is certain to come before a stop text; "" once one was found."""
        if self.found:
            return ""
        text = self._held + text
        places = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def close(self) -> str:
        """The held text, at the end of the stream."""
        text, self._held = self._held, ""
        return text
