"""The model that answers, as the server sees it: an interface, and the model of a snapshot behind it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from p2pmodel.loading.answers.turns import ChatAnswer, Sampling, Turn

if TYPE_CHECKING:
    from p2pmodel.loading.model import LoadedModel

OnText = Callable[[bool, str], None]


class ChatModel(Protocol):
    """A model on a device. `repo` and `commit` name its snapshot, as the hub does; empty where there is none."""

    @property
    def repo(self) -> str: ...

    @property
    def commit(self) -> str: ...

    @property
    def takes_images(self) -> bool:
        """Whether a turn may have pictures."""

    def reply(
        self, turns: Sequence[Turn], sampling: Sampling, *, on_text: OnText, stopped: Callable[[], bool]
    ) -> ChatAnswer:
        """Continue the conversation, as `loading/answers/chat.py` does. Blocks; called from one thread at a time."""


class LoadedChatModel(ChatModel):
    """A model that transformers runs in this process."""

    def __init__(self, loaded: "LoadedModel") -> None:
        self.loaded = loaded

    @property
    def repo(self) -> str:
        """The repository, by its name at the hub."""
        return str(self.loaded.repo or "")

    @property
    def commit(self) -> str:
        """The commit."""
        return self.loaded.commit

    @property
    def takes_images(self) -> bool:
        """Whether its processor takes pictures."""
        from p2pmodel.loading.answers.processor import takes_images  # noqa: PLC0415 - imports torch

        return takes_images(self.loaded.processor)

    def reply(
        self, turns: Sequence[Turn], sampling: Sampling, *, on_text: OnText, stopped: Callable[[], bool]
    ) -> ChatAnswer:
        """Continue the conversation."""
        from p2pmodel.loading.answers.chat import reply  # noqa: PLC0415 - imports torch

        return reply(self.loaded, turns, sampling, on_text=on_text, stopped=stopped)
