"""The model that answers, and its answers: one at a time, a bounded number of requests that wait, and counts of what
came of them.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from p2pmodel.core.sizes import counted
from p2pmodel.core.tasks import in_the_end
from p2pmodel.errors import TooManyRequests
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


Outcome = Literal["stop", "length", "left", "failed"]
"""`left`: the client was gone before the end; else as OpenAI's `finish_reason`."""


class AnswerQueue:
    """Requests take turns in the order of their arrival; at most `most_waiting` wait for the one that is answered."""

    def __init__(self, most_waiting: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.waiting = 0
        self._most_waiting = most_waiting
        self._clock = clock
        self._turn = asyncio.Lock()
        self._began = 0.0
        self._last_seconds = 1.0
        """How long the last turn took."""

    @property
    def running(self) -> bool:
        """Whether a request has its turn."""
        return self._turn.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn, and have it while the context lasts. Raises TooManyRequests if too many wait already."""
        if self.running and self.waiting >= self._most_waiting:
            seconds = self._last_seconds * (1 + self.waiting)
            raise TooManyRequests(
                f"{counted(self.waiting + 1, 'request')} ahead: the queue is full",
                hint="try again later: the model answers one request at a time",
                retry_after=max(1, min(60, round(seconds))),
            )
        self.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self.waiting -= 1
        began = self._clock()
        try:
            yield
        finally:
            self._last_seconds = self._clock() - began
            self._turn.release()


class AnswerCounts:
    """Counts of the requests and answers since the server started."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.seconds = 0.0
        """Seconds of all finished answers, from the turn to the last token."""
        self.first_token_seconds = 0.0

    def ended(self, answer: ChatAnswer) -> None:
        """Count an answer that reached its client."""
        self.outcomes["stop" if answer.finished else "length"] += 1
        self.prompt_tokens += answer.prompt_tokens
        self.generated_tokens += answer.tokens
        self.seconds += answer.seconds
        self.first_token_seconds += answer.first_token_seconds

    def broke_off(self, outcome: Outcome) -> None:
        """Count a request that did not get its whole answer."""
        self.outcomes[outcome] += 1


class RunningAnswer:
    """One answer, generated in a thread while the context lasts.

    Leaving the context stops the generation within one token, and waits for that.
    """

    def __init__(self, model: ChatModel, turns: Sequence[Turn], sampling: Sampling) -> None:
        self._model = model
        self._turns = turns
        self._sampling = sampling
        self._gone = threading.Event()
        self._texts: asyncio.Queue[tuple[bool, str] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._job: asyncio.Task[ChatAnswer] | None = None

    async def __aenter__(self) -> Self:
        self._job = asyncio.create_task(asyncio.to_thread(self._work))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gone.set()
        await in_the_end(self._ended())

    async def texts(self) -> AsyncIterator[tuple[bool, str]]:
        """The parts (is_thinking, text) as they come, until the answer ends or fails."""
        while (part := await self._texts.get()) is not None:
            yield part

    async def whole(self) -> ChatAnswer:
        """The whole answer; raises the error of the model."""
        assert self._job is not None
        return await asyncio.shield(self._job)

    def _work(self) -> ChatAnswer:
        try:
            return self._model.reply(self._turns, self._sampling, on_text=self._put, stopped=self._gone.is_set)
        finally:
            self._loop.call_soon_threadsafe(self._texts.put_nowait, None)

    def _put(self, is_thinking: bool, text: str) -> None:
        self._loop.call_soon_threadsafe(self._texts.put_nowait, (is_thinking, text))

    async def _ended(self) -> None:
        assert self._job is not None
        await asyncio.wait([self._job])
        if not self._job.cancelled():
            self._job.exception()  # retrieved, so that asyncio does not warn about an error that no client reads
