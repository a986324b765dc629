"""A model that answers from a script, without torch: `hold` stops it before each further word until it is released."""

import threading
from collections.abc import Callable, Sequence

from p2pmodel.errors import P2PModelError
from p2pmodel.loading.answers.turns import ChatAnswer, Sampling, Turn
from p2pmodel.serving.answers import ChatModel, OnText
from tests.support.eventually import PATIENCE


class ScriptedModel(ChatModel):
    """Says `words`, after `thinking`. `asked`: what it was asked; `fails`: raised before word number `fails_at`."""

    repo = ""
    commit = ""

    def __init__(
        self,
        words: Sequence[str] = ("It ", "is ", "red."),
        *,
        thinking: str = "",
        takes_images: bool = True,
        fails: P2PModelError | None = None,
        fails_at: int = 0,
        repo: str = "",
        commit: str = "",
    ) -> None:
        self.repo = repo
        self.commit = commit
        self.words = words
        self.thinking = thinking
        self.asked: list[tuple[tuple[Turn, ...], Sampling]] = []
        self.said: list[str] = []
        self.ended = threading.Semaphore(0)
        """Released at the end of each answer."""
        self._takes_images = takes_images
        self._fails = fails
        self._fails_at = fails_at
        self._free = threading.Semaphore(0)
        self._held = False

    @property
    def takes_images(self) -> bool:
        return self._takes_images

    def hold(self) -> None:
        """Wait before each word from now on."""
        self._held = True

    def release(self, words: int = 1) -> None:
        """Say that many words more."""
        self._free.release(words)

    def reply(
        self, turns: Sequence[Turn], sampling: Sampling, *, on_text: OnText, stopped: Callable[[], bool]
    ) -> ChatAnswer:
        self.asked.append((tuple(turns), sampling))
        try:
            return self._reply(sampling, on_text, stopped)
        finally:
            self.ended.release()

    def _reply(self, sampling: Sampling, on_text: OnText, stopped: Callable[[], bool]) -> ChatAnswer:
        said: list[str] = []
        if self.thinking:
            on_text(True, self.thinking)
        for number, word in enumerate(self.words[: sampling.max_new_tokens]):
            if self._fails is not None and number == self._fails_at:
                raise self._fails
            if not self._may_go_on(stopped):
                break
            said.append(word)
            self.said.append(word)
            on_text(False, word)
        whole = len(said) == len(self.words)
        return ChatAnswer("".join(said), self.thinking, len(said), whole, 0.5, 1.0, 7)

    def _may_go_on(self, stopped: Callable[[], bool]) -> bool:
        for _ in range(int(PATIENCE / 0.01)):
            if stopped():
                return False
            if not self._held or self._free.acquire(timeout=0.01):
                return True
        raise AssertionError("never released")
