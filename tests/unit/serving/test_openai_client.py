"""OpenAI's own client understands every response of the endpoint."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from p2pmodel.loading.answers.turns import Picture
from tests.support.chat_models import ScriptedModel
from tests.support.model_endpoint import NAME, serving_model

KEY = "sesame-sesame-sesame"


@asynccontextmanager
async def client_of(model: ScriptedModel, *, key: str = KEY, held: bool = False) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serving_model(model, key=KEY, held=held) as served,
        openai.AsyncOpenAI(base_url=served.api, api_key=key, max_retries=0) as client,
    ):
        yield client


async def test_models_and_a_conversation_of_several_turns() -> None:
    model = ScriptedModel(thinking="hm")
    async with client_of(model) as client:
        assert [each.id async for each in client.models.list()] == [NAME]
        assert (await client.models.retrieve(NAME)).id == NAME
        first = await client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "hello"}])
        said = first.choices[0].message
        assert said.content == "It is red."
        assert said.model_extra["reasoning_content"] == "hm"
        assert first.usage.total_tokens == 10
        turns = [{"role": "user", "content": "hello"}, said.model_dump(), {"role": "user", "content": "and?"}]
        await client.chat.completions.create(model=NAME, messages=[{"role": "system", "content": "short"}, *turns])
        asked, _ = model.asked[1]
        assert [(turn.role, turn.text) for turn in asked] == [
            ("system", "short"),
            ("user", "hello"),
            ("assistant", "It is red."),
            ("user", "and?"),
        ]


async def test_a_stream_with_a_picture(tmp_path: Path) -> None:
    model = ScriptedModel()
    url = f"data:image/png;base64,{base64.b64encode(b'bytes of a picture').decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what?"}]
    async with client_of(model) as client:
        stream = await client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": content}],
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=2,
            temperature=0.5,
            top_p=0.9,
            seed=3,
            stop=["END"],
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It is "
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 2
    [(turns, sampling)] = model.asked
    assert turns[0].parts == (Picture(b"bytes of a picture"), "what?")
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.stop) == (0.5, 0.9, 3, ("END",))


async def test_its_errors() -> None:
    hello = [{"role": "user", "content": "hello"}]
    async with client_of(ScriptedModel()) as client:
        create = client.chat.completions.create
        with pytest.raises(openai.NotFoundError) as missing:
            await create(model="gpt-9", messages=hello)
        assert missing.value.code == "model_not_found"
        tools = [{"type": "function", "function": {"name": "f"}}]
        for unsupported in (
            {"tools": tools},
            {"n": 2},
            {"logprobs": True},
            {"response_format": {"type": "json_object"}},
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                await create(model=NAME, messages=hello, **unsupported)
            assert (refused.value.code, refused.value.param) == ("unsupported_parameter", next(iter(unsupported)))
    async with client_of(ScriptedModel(), key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as denied:
            await client.models.list()
        assert denied.value.code == "invalid_api_key"
    async with client_of(ScriptedModel(), held=True) as client:
        with pytest.raises(openai.InternalServerError, match="is not ready: finding") as early:
            await client.chat.completions.create(model=NAME, messages=hello)
        assert (early.value.status_code, early.value.code) == (503, "model_loading")
