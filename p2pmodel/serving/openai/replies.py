"""The responses of the endpoint in OpenAI's format: completions, chunks of a stream, models and errors."""

import json
import secrets
from dataclasses import dataclass
from typing import Any

from p2pmodel.errors import AccessDenied, InvalidField, ModelLoading, P2PModelError, TooManyRequests
from p2pmodel.loading.answers.turns import ChatAnswer

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
