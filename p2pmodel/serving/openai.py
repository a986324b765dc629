"""The format of OpenAI's chat completions: requests as a conversation and a sampling, responses and errors. Pure.

What is not offered is refused by its name. Nothing is fetched for a request: images come inside it, as data URLs.
"""

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from p2pmodel.core.content.names import printable
from p2pmodel.errors import (
    AccessDenied,
    InvalidField,
    InvalidInput,
    ModelLoading,
    ModelNotFound,
    P2PModelError,
    TooManyRequests,
    UnsupportedField,
)
from p2pmodel.loading.answers.turns import ChatAnswer, Picture, Sampling, Turn

MOST_IMAGES = 16
"""Bound on the images of a request."""
MOST_STOPS = 4
_MOST_TOKENS = 1 << 31
_NAME_LENGTH = 80
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "verbosity": (),
}
"""Fields that are not offered, with the values that ask for nothing."""
_WITHOUT_EFFECT = frozenset(
    ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
)
"""Fields that do not change an answer."""


class _Lenient(BaseModel):
    """Clients send back what earlier answers had, so further keys are allowed."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _TextPart(_Lenient):
    type: Literal["text"]
    text: str


class _ImageUrl(_Lenient):
    url: str = Field(repr=False)


class _ImagePart(_Lenient):
    type: Literal["image_url"]
    image_url: _ImageUrl


_PARTS = ("text", "image_url")


def _known_part(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind is None:
        raise ValueError("a part is an object with a type of text or image_url")
    if kind not in _PARTS:
        raise ValueError(
            f"a part of type '{printable(str(kind), _NAME_LENGTH)}' is not supported, only text and image_url"
        )
    return value


_Part = Annotated[
    Annotated[_TextPart | _ImagePart, Field(discriminator="type")],
    BeforeValidator(_known_part),
]


def _as_parts(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise ValueError("the content is a text or a list of parts")  # noqa: TRY004 - pydantic reports this class
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class _Message(_Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_Part], BeforeValidator(_as_parts)]


class _EventOptions(_Lenient):
    include_usage: bool | None = None


def _tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class _ChatBody(BaseModel):
    """The fields that have an effect."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=False)

    model: str | None = None
    messages: list[_Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: _EventOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, lt=_MOST_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=_MOST_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...] | None, BeforeValidator(_tuple)] = Field(
        default=None, max_length=MOST_STOPS
    )


_FIELDS = frozenset(_ChatBody.model_fields)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `model` is what the client asked for, None if it left that open."""

    model: str | None
    turns: tuple[Turn, ...]
    sampling: Sampling
    stream: bool = False
    include_usage: bool = False

    @property
    def has_pictures(self) -> bool:
        """Whether a turn has a picture."""
        return any(isinstance(part, Picture) for turn in self.turns for part in turn.parts)


def chat_request(raw: bytes, *, most_tokens: int) -> ChatRequest:
    """The request in the JSON text `raw`. An answer has at most `most_tokens` tokens, whatever the client asks for.

    Raises InvalidField and UnsupportedField with the field, and InvalidInput for what is not a JSON object.
    """
    try:
        plain = _OBJECT.validate_json(raw)
    except ValidationError:
        raise InvalidInput("the body is not a JSON object", hint="send one as the OpenAI API describes it") from None
    _refuse_unsupported(plain)
    try:
        body = _ChatBody.model_validate(plain)
    except ValidationError as error:
        raise _invalid(error) from None
    wanted = body.max_completion_tokens or body.max_tokens or most_tokens
    options = body.stream_options
    return ChatRequest(
        body.model,
        _turns(body.messages),
        Sampling(body.temperature, body.top_p, body.seed, min(wanted, most_tokens), body.stop or ()),
        stream=bool(body.stream),
        include_usage=bool(options and options.include_usage),
    )


def check_model(asked: str | None, served: frozenset[str], shown: str) -> None:
    """Raise ModelNotFound unless `asked` is None or one of the names `served`, in whichever case."""
    if asked is not None and asked.lower() not in {name.lower() for name in served}:
        raise ModelNotFound(
            f"the model '{printable(asked, _NAME_LENGTH)}' is not served here", hint=f"this server has {shown}"
        )


_OBJECT = TypeAdapter(dict[str, Any])


def _refuse_unsupported(plain: dict[str, Any]) -> None:
    for name, value in plain.items():
        if name in _FIELDS or name in _WITHOUT_EFFECT or value is None:
            continue
        shown = printable(name, _NAME_LENGTH)
        if name not in _NEUTRAL:
            raise UnsupportedField(f"the field '{shown}' is not supported", field=shown, hint="leave it out")
        if value not in _NEUTRAL[name]:
            raise UnsupportedField(f"'{name}' is not supported with this value", field=name, hint="leave it out")


def _invalid(error: ValidationError) -> InvalidField:
    first = error.errors(include_url=False, include_input=False)[0]
    place = [part for part in first["loc"] if isinstance(part, int) or part in _PLACES]
    steps = [step for step, before in zip(place, [None, *place], strict=False) if step != before]
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    reason = first["msg"].removeprefix("Value error, ")
    return InvalidField(f"{where}: {reason[:1].lower()}{reason[1:]}", field=str(place[0]) if place else "")


_PLACES = _FIELDS | {"role", "content", "type", "text", "image_url", "url", "include_usage"}
"""Keys of the document. pydantic puts the kinds of a union between them."""


def _turns(messages: list[_Message]) -> tuple[Turn, ...]:
    images = 0
    turns = []
    for index, message in enumerate(messages):
        role = "system" if message.role == "developer" else message.role
        parts = tuple(map(_part, message.content))
        images += sum(isinstance(part, Picture) for part in parts)
        if images > MOST_IMAGES:
            raise InvalidField(f"messages: there are more than {MOST_IMAGES} images", field="messages")
        if role != "user" and any(isinstance(part, Picture) for part in parts):
            raise InvalidField(f"messages[{index}]: only the user's messages have images", field="messages")
        turns.append(Turn(role, parts))
    return tuple(turns)


def _part(part: _TextPart | _ImagePart) -> str | Picture:
    if isinstance(part, _TextPart):
        return part.text
    head, comma, body = part.image_url.url.partition(",")
    if not (comma and head.lower().startswith("data:image/") and head.lower().endswith(";base64")):
        raise InvalidField(
            "messages: an image is not a data URL",
            field="messages",
            hint="send it as data:image/png;base64,...; nothing is fetched for a request",
        )
    try:
        return Picture(base64.b64decode(body, validate=True))
    except ValueError:  # binascii.Error is one, and the error of characters that are not ASCII
        raise InvalidField("messages: an image is not valid base64", field="messages") from None


OWNER = "p2pmodel"
DONE = b"data: [DONE]\n\n"

Json = dict[str, Any]


def finish_reason(answer: ChatAnswer) -> str:
    """Why the answer ended."""
    return "stop" if answer.finished else "length"


def usage(answer: ChatAnswer) -> Json:
    """The tokens of a request."""
    prompt, completion = answer.prompt_tokens, answer.tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@dataclass(frozen=True, slots=True)
class Completion:
    """The identity of one completion: `created` is in seconds since 1970."""

    id: str
    created: int
    model: str

    @classmethod
    def new(cls, model: str, created: float) -> "Completion":
        """A completion with an id of its own."""
        return cls(f"chatcmpl-{secrets.token_hex(12)}", int(created), model)

    def whole(self, answer: ChatAnswer) -> Json:
        """The response to a request without streaming. Reasoning is in `reasoning_content`."""
        message: Json = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.thinking:
            message["reasoning_content"] = answer.thinking
        choice = {"index": 0, "message": message, "finish_reason": finish_reason(answer), "logprobs": None}
        return self._head("chat.completion") | {"choices": [choice], "usage": usage(answer)}

    def first(self) -> bytes:
        """The first chunk of a stream."""
        return self._chunk([_choice({"role": "assistant", "content": ""})])

    def text(self, text: str, *, is_thinking: bool) -> bytes:
        """A chunk with a part of the answer, or of the reasoning."""
        return self._chunk([_choice({"reasoning_content" if is_thinking else "content": text})])

    def last(self, answer: ChatAnswer, *, with_usage: bool) -> bytes:
        """The chunks after the last part, and the end of the stream."""
        chunks = self._chunk([_choice({}, finish_reason(answer))])
        if with_usage:
            chunks += self._chunk([], usage=usage(answer))
        return chunks + DONE

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, choices: list[Json], **more: Json) -> bytes:
        return event(self._head("chat.completion.chunk") | {"choices": choices} | more)


def event(plain: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(plain, separators=(",", ":")).encode() + b"\n\n"


def _choice(delta: Json, finish: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}


def failure(error: P2PModelError) -> Json:
    """The body of an error response."""
    text = f"{error.what}; {error.hint}" if error.hint else error.what
    code = "invalid_api_key" if isinstance(error, AccessDenied) and error.http_status == 401 else error.code
    field = error.field or None if isinstance(error, InvalidField) else None
    return {"error": {"message": text, "type": _kind(error), "param": field, "code": code}}


def retry_after(error: P2PModelError) -> int | None:
    """Seconds after which a client tries again; None if that is not known to help."""
    return error.retry_after if isinstance(error, TooManyRequests | ModelLoading) else None


def _kind(error: P2PModelError) -> str:
    if isinstance(error, TooManyRequests):
        return "rate_limit_error"
    return "invalid_request_error" if error.http_status < 500 else "server_error"


def model_entry(model: str, created: float, state: Json) -> Json:
    """A model in the list of models. `state` is how far it has come."""
    return {"id": model, "object": "model", "created": int(created), "owned_by": OWNER} | state
