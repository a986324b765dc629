"""A conversation that a model continues, how its tokens are drawn, and its answer. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image in a format that pillow reads: a file, or its bytes."""

    source: Path | bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side of the conversation said: texts and pictures, in their order."""

    role: Role
    parts: tuple[str | Picture, ...]

    @property
    def text(self) -> str:
        """The texts alone."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of an answer are drawn. None: as the model's own generation config says."""

    temperature: float | None = None
    """0: always the most likely token."""
    top_p: float | None = None
    seed: int | None = None
    """None: another one for each answer."""
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    """Texts that end the answer, and are not part of it. They do not end the reasoning of a Thinking model."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The output of the model. `thinking` is the reasoning of a Thinking model, without its tags."""

    text: str
    thinking: str
    tokens: int
    """Generated tokens, the end-of-text token included."""
    finished: bool
    """False if `max_new_tokens` or the room for the conversation ended the output."""
    first_token_seconds: float
    """From the call to the first generated token: preprocessing and prefill."""
    seconds: float
    prompt_tokens: int = 0
    """Tokens of the conversation, pictures included."""
