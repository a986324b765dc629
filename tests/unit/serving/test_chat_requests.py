"""What a request may have, and what is refused by which name."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.errors import InvalidField, InvalidInput, ModelNotFound, P2PModelError, UnsupportedField
from p2pmodel.loading.answers.turns import Picture, Sampling, Turn
from p2pmodel.serving.openai import MOST_IMAGES, ChatRequest, chat_request, check_model

USER = {"role": "user", "content": "hello"}
PNG = f"data:image/png;base64,{base64.b64encode(b'x').decode()}"


def request(**fields: Any) -> ChatRequest:
    return chat_request(json.dumps({"messages": [USER]} | fields).encode(), most_tokens=100)


def image(url: Any = PNG) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_the_least_request() -> None:
    assert request() == ChatRequest(None, (Turn("user", ("hello",)),), Sampling(max_new_tokens=100))


def test_all_that_is_offered() -> None:
    parts = [image(), {"type": "text", "text": "what?"}]
    found = request(
        model="org/model",
        messages=[{"role": "developer", "content": "short"}, {"role": "user", "content": parts, "name": "x"}],
        stream=True,
        stream_options={"include_usage": True},
        max_completion_tokens=5,
        temperature=0,
        top_p=0.5,
        seed=-1,
        stop="END",
        user="someone",
        n=1,
        tools=[],
        response_format={"type": "text"},
        logprobs=None,
    )
    turns = (Turn("system", ("short",)), Turn("user", (Picture(b"x"), "what?")))
    assert found == ChatRequest("org/model", turns, Sampling(0, 0.5, -1, 5, ("END",)), stream=True, include_usage=True)
    assert found.has_pictures


@pytest.mark.parametrize(("asked", "gets"), [({"max_tokens": 7}, 7), ({"max_tokens": 10**6}, 100), ({}, 100)])
def test_the_bound_of_the_server_holds(asked: dict[str, int], gets: int) -> None:
    assert request(**asked).sampling.max_new_tokens == gets


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"response_format": {"type": "json_object"}},
        {"presence_penalty": 0.5},
        {"logit_bias": {"1": 5}},
        {"modalities": ["text", "audio"]},
        {"reasoning_effort": "low"},
        {"top_k": 5},
        {"mirostat": 1},
    ],
)
def test_what_is_not_offered_is_refused_by_its_name(fields: dict[str, Any]) -> None:
    [name] = fields
    with pytest.raises(UnsupportedField, match=name) as refused:
        request(**fields)
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"messages": []}, "messages", "messages: list should have at least 1 item"),
        ({"messages": "hello"}, "messages", "messages: input should be a valid list"),
        ({"messages": [{"role": "user"}]}, "messages", r"messages\[0\].content: field required"),
        ({"messages": [{"role": "user", "content": None}]}, "messages", "the content is a text or a list of parts"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", r"messages\[0\].role: input should be 'system'"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages", "'input_audio' is not"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages", "a part is an object"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages", r"\[0\].text: field required"),
        ({"messages": [{"role": "user", "content": [image("http://x/a.png")]}]}, "messages", "is not a data URL"),
        ({"messages": [{"role": "user", "content": [image("file:///etc/passwd")]}]}, "messages", "is not a data URL"),
        ({"messages": [{"role": "user", "content": [image("http://x/a,eA==")]}]}, "messages", "is not a data URL"),
        (
            {"messages": [{"role": "user", "content": [image("data:text/html;base64,eA==")]}]},
            "messages",
            "is not a data",
        ),
        ({"messages": [{"role": "user", "content": [image("data:image/png,eA==")]}]}, "messages", "is not a data URL"),
        ({"messages": [{"role": "user", "content": [image("data:image/png;base64,%%")]}]}, "messages", "valid base64"),
        ({"messages": [{"role": "user", "content": [image("data:image/png;base64,é")]}]}, "messages", "valid base64"),
        ({"messages": [{"role": "user", "content": [image(5)]}]}, "messages", "url: input should be a valid string"),
        ({"messages": [{"role": "assistant", "content": [image()]}]}, "messages", "only the user's messages"),
        ({"messages": [{"role": "user", "content": [image()] * (MOST_IMAGES + 1)}]}, "messages", "more than 16"),
        ({"temperature": 2.5}, "temperature", "temperature: input should be less than or equal to 2"),
        ({"temperature": -1}, "temperature", "temperature: input should be greater than or equal to 0"),
        ({"top_p": 1.5}, "top_p", "top_p"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens: input should be greater than or equal to 1"),
        ({"seed": 1 << 64}, "seed", "seed"),
        ({"stop": ["a"] * 5}, "stop", "stop"),
        ({"stop": ""}, "stop", "stop"),
        ({"stream": "perhaps"}, "stream", "stream: input should be a valid boolean"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(fields: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidField, match=says) as refused:
        request(**fields)
    assert refused.value.field == field


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_object(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="the body is not a JSON object"):
        chat_request(raw, most_tokens=5)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    ["messages", "role", "content", "type", "text", "image_url", "url", "stop", "seed", "n", "tools"]
)


@given(st.dictionaries(_NAMES, _JSON | st.lists(st.dictionaries(_NAMES, _JSON))))
def test_any_object_is_taken_or_refused_in_one_line(plain: dict[str, Any]) -> None:
    try:
        chat_request(json.dumps(plain).encode(), most_tokens=5)
    except P2PModelError as error:
        assert str(error).isprintable()  # noqa: PT017
        assert error.http_status == 400  # noqa: PT017


def test_the_name_of_the_model() -> None:
    served = frozenset(("org/model", "org/model@main"))
    for name in (None, "org/model", "Org/Model", "org/model@main"):
        check_model(name, served, "org/model")
    with pytest.raises(ModelNotFound, match="'gpt-9' is not served here; this server has org/model"):
        check_model("gpt-9", served, "org/model")
