"""The answer of a loaded model to one prompt, as a stream of text."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from p2pmodel.errors import InvalidInput
from p2pmodel.loading.failures import translated
from p2pmodel.loading.model import LoadedModel
from p2pmodel.loading.processor import open_image, takes_images
from p2pmodel.loading.think_tags import OPEN, ThinkingSplitter


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The output of the model. `thinking` is the reasoning of a Thinking model, without its tags."""

    text: str
    thinking: str
    tokens: int
    """Generated tokens, the end-of-text token included."""
    finished: bool
    """False if `max_new_tokens` ended the output."""
    first_token_seconds: float
    """From the call to the first generated token: preprocessing and prefill."""
    seconds: float


def answer(
    loaded: LoadedModel,
    prompt: str,
    image: Path | None = None,
    *,
    max_new_tokens: int = 256,
    on_text: Callable[[bool, str], None] = lambda _thinking, _text: None,
) -> ChatAnswer:
    """Answer `prompt`, optionally about `image`, and return the whole answer.

    Decoding is greedy, so the same model, prompt and image give the same answer. `on_text(is_thinking, text)` is
    called in this thread with text that later tokens cannot change; an exception in it (or a KeyboardInterrupt) stops
    the generation within one token. Raises InvalidInput for a prompt or image that the model does not support,
    LocalResource if memory runs out.
    """
    if max_new_tokens < 1:
        raise InvalidInput(f"max_new_tokens is {max_new_tokens}", hint="allow at least one token")
    started = time.perf_counter()
    inputs = _inputs(loaded, prompt, image)
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    sink = _ChatText(ThinkingSplitter(inside=_opens_thinking(tokenizer, inputs)), on_text)
    clock = _TokenClock()
    with translated(f"generating with {loaded.architecture} on {loaded.device}"), torch.inference_mode():
        output = loaded.model.generate(
            **inputs,
            generation_config=_greedy(loaded.model.generation_config, max_new_tokens),
            streamer=_Streamer(tokenizer, sink),
            stopping_criteria=transformers.StoppingCriteriaList([clock]),
        )
    tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
    return ChatAnswer(
        text=sink.joined(thinking=False).rstrip(),
        thinking=sink.joined(thinking=True).rstrip(),
        tokens=len(tokens),
        finished=bool(tokens) and tokens[-1] in _ends(loaded.model.generation_config),
        first_token_seconds=clock.first - started,
        seconds=time.perf_counter() - started,
    )


def _inputs(loaded: LoadedModel, prompt: str, image: Path | None) -> Any:
    """Tensors on the model's device: input_ids [1, tokens] and, with an image, its pixel values."""
    if not loaded.model.can_generate():
        raise InvalidInput(f"{loaded.architecture} does not generate text", hint="load it without a prompt")
    if image is not None and not takes_images(loaded.processor):
        raise InvalidInput(f"an image was given, but {loaded.architecture} takes text only", hint="leave out --image")
    picture = None if image is None else open_image(image)
    with translated("preparing the prompt"):
        return _encode(loaded.processor, prompt, picture).to(loaded.device)


def _encode(processor: Any, prompt: str, picture: Any) -> Any:
    if not processor.chat_template:
        if picture is not None:
            raise InvalidInput("this model has no chat template for an image", hint="leave out --image")
        return processor(text=prompt, return_tensors="pt")
    content: Any = prompt
    if takes_images(processor):
        content = [{"type": "image", "image": picture}] if picture is not None else []
        content.append({"type": "text", "text": prompt})
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def _opens_thinking(tokenizer: Any, inputs: Any) -> bool:
    tail = str(tokenizer.decode(inputs["input_ids"][0, -8:].tolist()))
    return tail.rstrip().endswith(OPEN)


def _greedy(config: Any, max_new_tokens: int) -> Any:
    """The model's own generation config with the most likely token at every step."""
    greedy = copy.deepcopy(config)
    greedy.update(do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, max_length=None)
    # The library's neutral values: generate() replaces None by the values of the model's config.
    greedy.update(temperature=1.0, top_p=1.0, top_k=50, min_p=None, typical_p=1.0)
    return greedy


def _ends(config: Any) -> list[int]:
    ends = config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


@dataclass(slots=True)
class _ChatText:
    """Collects the decoded text as parts of reasoning and of answer."""

    splitter: ThinkingSplitter
    on_text: Callable[[bool, str], None]
    parts: list[tuple[bool, str]] = field(default_factory=list)

    def put(self, text: str, *, last: bool) -> None:
        self._pass_on(list(self.splitter.feed(text)))
        if last:
            self._pass_on(list(self.splitter.close()))

    def joined(self, *, thinking: bool) -> str:
        return "".join(text for is_thinking, text in self.parts if is_thinking is thinking)

    def _pass_on(self, parts: list[tuple[bool, str]]) -> None:
        self.parts += parts
        for is_thinking, text in parts:
            self.on_text(is_thinking, text)


class _Streamer(transformers.TextStreamer):
    """Passes text that later tokens cannot change to `sink`."""

    def __init__(self, tokenizer: Any, sink: _ChatText) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._sink = sink

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._sink.put(text, last=stream_end)


class _TokenClock(transformers.StoppingCriteria):
    """Called after every token: records the time of the first one, and never stops the generation."""

    def __init__(self) -> None:
        self.first = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ARG002
        self.first = self.first or time.perf_counter()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
