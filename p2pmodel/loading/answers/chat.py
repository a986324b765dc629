"""The answer of a loaded model to a conversation, as a stream of text."""

import copy
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from p2pmodel.errors import InvalidInput, PromptTooLong
from p2pmodel.loading.answers.processor import open_image, takes_images
from p2pmodel.loading.answers.text_stream import OPEN, StopTexts, ThinkingSplitter
from p2pmodel.loading.answers.turns import ChatAnswer, Picture, Sampling, Turn
from p2pmodel.loading.failures import translated
from p2pmodel.loading.model import LoadedModel

OnText = Callable[[bool, str], None]
"""Called as `on_text(is_thinking, text)`."""

_LOWEST_TEMPERATURE = 0.01
"""Below it the most likely token is taken: logits that are divided by less may overflow."""


def answer(
    loaded: LoadedModel,
    prompt: str,
    image: Path | None = None,
    *,
    max_new_tokens: int = 256,
    on_text: OnText = lambda _thinking, _text: None,
) -> ChatAnswer:
    """Answer `prompt`, optionally about `image`, as `reply` does.

    Decoding is greedy, so the same model, prompt and image give the same answer.
    """
    parts = (prompt,) if image is None else (Picture(image), prompt)
    sampling = Sampling(temperature=0, max_new_tokens=max_new_tokens)
    return reply(loaded, (Turn("user", parts),), sampling, on_text=on_text)


def reply(
    loaded: LoadedModel,
    turns: Sequence[Turn],
    sampling: Sampling,
    *,
    on_text: OnText = lambda _thinking, _text: None,
    stopped: Callable[[], bool] = lambda: False,
) -> ChatAnswer:
    """Continue the conversation `turns`, and return the whole answer.

    `on_text(is_thinking, text)` is called in this thread with text that later tokens cannot change; an exception in it
    (or a KeyboardInterrupt) stops the generation within one token, as `stopped()` does. Raises InvalidInput for a
    conversation that the model does not support, PromptTooLong for one that it has no room for, and LocalResource if
    memory runs out.
    """
    if sampling.max_new_tokens < 1:
        raise InvalidInput(f"max_new_tokens is {sampling.max_new_tokens}", hint="allow at least one token")
    started = time.perf_counter()
    inputs = _inputs(loaded, turns)
    length = inputs["input_ids"].shape[1]
    config = _drawn(loaded.model.generation_config, sampling, min(sampling.max_new_tokens, _room(loaded, length)))
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    splitter = ThinkingSplitter(inside=_opens_thinking(tokenizer, inputs))
    sink = _ChatText(splitter, StopTexts(sampling.stop), on_text)
    watch = _TokenWatch(lambda: sink.stops.found or stopped())
    with translated(f"generating with {loaded.architecture} on {loaded.device}"), torch.inference_mode():
        if config.do_sample:
            torch.manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed)
        output = loaded.model.generate(
            **inputs,
            generation_config=config,
            streamer=_Streamer(tokenizer, sink),
            stopping_criteria=transformers.StoppingCriteriaList([watch]),
        )
    tokens = output[0, length:].tolist()
    return ChatAnswer(
        text=sink.joined(thinking=False).rstrip(),
        thinking=sink.joined(thinking=True).rstrip(),
        tokens=len(tokens),
        finished=sink.stops.found or (bool(tokens) and tokens[-1] in _ends(loaded.model.generation_config)),
        first_token_seconds=watch.first - started,
        seconds=time.perf_counter() - started,
        prompt_tokens=length,
    )


def _inputs(loaded: LoadedModel, turns: Sequence[Turn]) -> Any:
    """Tensors on the model's device: input_ids [1, tokens] and, with pictures, their pixel values."""
    if not loaded.model.can_generate():
        raise InvalidInput(f"{loaded.architecture} does not generate text", hint="load it without a prompt")
    with_images = takes_images(loaded.processor)
    if not with_images and any(isinstance(part, Picture) for turn in turns for part in turn.parts):
        raise InvalidInput(f"an image was given, but {loaded.architecture} takes text only", hint="leave out --image")
    if not loaded.processor.chat_template:
        _check_bare(turns)
    messages = [{"role": turn.role, "content": _content(turn, with_images=with_images)} for turn in turns]
    with translated("preparing the prompt"):
        return _encode(loaded.processor, messages).to(loaded.device)


def _check_bare(turns: Sequence[Turn]) -> None:
    """Raise InvalidInput for what a model without a chat template does not take."""
    if any(isinstance(part, Picture) for turn in turns for part in turn.parts):
        raise InvalidInput("this model has no chat template for an image", hint="leave out --image")
    if len(turns) != 1:
        raise InvalidInput("this model has no chat template", hint="send one message without others before it")


def _content(turn: Turn, *, with_images: bool) -> Any:
    if not with_images:
        return turn.text
    return [
        {"type": "image", "image": open_image(part.source)}
        if isinstance(part, Picture)
        else {"type": "text", "text": part}
        for part in turn.parts
    ]


def _encode(processor: Any, messages: list[dict[str, Any]]) -> Any:
    if not processor.chat_template:
        content = messages[0]["content"]
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        return processor(text=text, return_tensors="pt")
    return processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def _room(loaded: LoadedModel, length: int) -> int:
    """Tokens that the model's context has left after a prompt of `length` tokens."""
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return 1 << 30
    if length >= context:
        raise PromptTooLong(
            f"the conversation has {length} tokens, and the model has room for {context}",
            hint="begin a new one, or use smaller images",
        )
    return int(context) - length


def _opens_thinking(tokenizer: Any, inputs: Any) -> bool:
    tail = str(tokenizer.decode(inputs["input_ids"][0, -8:].tolist()))
    return tail.rstrip().endswith(OPEN)


def _drawn(config: Any, sampling: Sampling, max_new_tokens: int) -> Any:
    """The model's own generation config, changed as `sampling` says."""
    drawn = copy.deepcopy(config)
    drawn.update(num_beams=1, max_new_tokens=max_new_tokens, max_length=None)
    temperature, top_p = sampling.temperature, sampling.top_p
    draws = bool(config.do_sample) or top_p is not None if temperature is None else temperature >= _LOWEST_TEMPERATURE
    if draws:
        drawn.update(do_sample=True)
        if temperature is not None:
            drawn.update(temperature=float(temperature))
        if top_p is not None:
            drawn.update(top_p=float(top_p))
    else:
        drawn.update(do_sample=False)
        # The library's neutral values: generate() replaces None by the values of the model's config.
        drawn.update(temperature=1.0, top_p=1.0, top_k=50, min_p=None, typical_p=1.0)
    return drawn


def _ends(config: Any) -> list[int]:
    ends = config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


@dataclass(slots=True)
class _ChatText:
    """Collects the decoded text as parts of reasoning and of answer."""

    splitter: ThinkingSplitter
    stops: StopTexts
    on_text: OnText
    parts: list[tuple[bool, str]] = field(default_factory=list)

    def put(self, text: str, *, last: bool) -> None:
        for is_thinking, part in self.splitter.feed(text):
            self._pass_on(is_thinking, part if is_thinking else self.stops.feed(part))
        if last:
            for is_thinking, part in self.splitter.close():
                self._pass_on(is_thinking, part if is_thinking else self.stops.feed(part))
            self._pass_on(False, self.stops.close())

    def joined(self, *, thinking: bool) -> str:
        return "".join(text for is_thinking, text in self.parts if is_thinking is thinking)

    def _pass_on(self, is_thinking: bool, text: str) -> None:
        if text:
            self.parts.append((is_thinking, text))
            self.on_text(is_thinking, text)


class _Streamer(transformers.TextStreamer):
    """Passes text that later tokens cannot change to `sink`."""

    def __init__(self, tokenizer: Any, sink: _ChatText) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._sink = sink

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._sink.put(text, last=stream_end)


class _TokenWatch(transformers.StoppingCriteria):
    """Called after every token: records the time of the first one, and ends the generation once `ended()`."""

    def __init__(self, ended: Callable[[], bool]) -> None:
        self.first = 0.0
        self._ended = ended

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ARG002
        self.first = self.first or time.perf_counter()
        return torch.full((input_ids.shape[0],), self._ended(), dtype=torch.bool, device=input_ids.device)


__all__ = ["ChatAnswer", "answer", "reply"]
