"""The text of an answer as it streams, in chunks of any size: split by the tags of a Thinking model into reasoning and
answer, and ended by stop texts.
"""

from collections.abc import Iterator, Sequence

OPEN = "<think>"
CLOSE = "</think>"


class ThinkingSplitter:
    """Splits fed text into (is_thinking, text) parts without the tags.

    The chat templates of Thinking models end the prompt with `<think>`, so their output starts `inside`. Other models
    may start their output with the tag; after the start a tag is part of the answer.
    """

    def __init__(self, *, inside: bool) -> None:
        self._inside = inside
        self._started = inside
        self._bare = True
        """Only white space since the last tag; it is dropped with the tag."""
        self._held = ""

    def feed(self, text: str) -> Iterator[tuple[bool, str]]:
        """The complete parts after `text`; a possible beginning of a tag is held until the next call."""
        self._held += text
        if not self._started and not self._start():
            return
        if self._inside:
            before, tag, after = self._held.partition(CLOSE)
            keep = 0 if tag else overlap(before, CLOSE)
            yield from self._emit(before[: len(before) - keep])
            self._held = before[len(before) - keep :]
            if not tag:
                return
            self._inside, self._bare, self._held = False, True, after
        yield from self._emit(self._held)
        self._held = ""

    def close(self) -> Iterator[tuple[bool, str]]:
        """The held text, at the end of the stream."""
        yield from self._emit(self._held)
        self._held = ""

    def _start(self) -> bool:
        """Decide whether the output starts with the tag; False while more text is needed."""
        text = self._held.lstrip()
        if len(text) < len(OPEN) and OPEN.startswith(text):
            return False
        self._started = True
        if text.startswith(OPEN):
            self._inside, self._held = True, text.removeprefix(OPEN)
        return True

    def _emit(self, text: str) -> Iterator[tuple[bool, str]]:
        text = text.lstrip() if self._bare else text
        if text:
            self._bare = False
            yield self._inside, text


def overlap(text: str, tag: str) -> int:
    """The number of characters at the end of `text` that could begin `tag`."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)


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
