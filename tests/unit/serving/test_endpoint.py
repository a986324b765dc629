"""The endpoint over HTTP, with a model from a script."""

import asyncio
import base64
import json
from typing import Any

import aiohttp
import pytest

from p2pmodel.core.progress.progress import Progress
from p2pmodel.errors import LocalResource, PromptTooLong
from tests.support.chat_models import ScriptedModel
from tests.support.eventually import PATIENCE, eventually
from tests.support.model_endpoint import NAME, Served, serving_model

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
KEY = "sesame-sesame-sesame"


async def post(served: Served, body: Any, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{served.api}/chat/completions", json=body) as response,
    ):
        return response.status, await response.json(), dict(response.headers)


async def get(served: Served, path: str, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession(headers=headers) as session, session.get(served.url + path) as response:
        return response.status, await response.json()


async def events(served: Served, body: Any) -> list[Any]:
    """The data of all events of a stream; the last one as text."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{served.api}/chat/completions", json=body) as response,
    ):
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        texts = [line.removeprefix("data: ") for line in (await response.text()).split("\n\n") if line]
    return [*map(json.loads, texts[:-1]), texts[-1]]


async def test_an_answer_as_a_whole() -> None:
    model = ScriptedModel(thinking="hm")
    async with serving_model(model) as served:
        status, found, _ = await post(served, HELLO | {"model": NAME, "temperature": 0, "seed": 5})
        assert status == 200
        assert found["choices"] == [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": None,
                "message": {
                    "role": "assistant",
                    "content": "It is red.",
                    "refusal": None,
                    "reasoning_content": "hm",
                },
            }
        ]
        assert found["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        assert (found["object"], found["model"]) == ("chat.completion", NAME)
        [(turns, sampling)] = model.asked
        assert [(turn.role, turn.text) for turn in turns] == [("user", "hello")]
        assert (sampling.temperature, sampling.seed, sampling.max_new_tokens) == (0, 5, 100)


async def test_a_stream_ends_in_done() -> None:
    async with serving_model(ScriptedModel(thinking="hm")) as served:
        *chunks, last = await events(served, HELLO | {"stream": True, "stream_options": {"include_usage": True}})
        assert last == "[DONE]"
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
        assert deltas == [
            {"role": "assistant", "content": ""},
            {"reasoning_content": "hm"},
            *({"content": word} for word in ("It ", "is ", "red.")),
            {},
        ]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 5 + ["stop"]
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["total_tokens"] == 10
        assert len({chunk["id"] for chunk in chunks}) == 1
        *without, _ = await events(served, HELLO | {"stream": True})
        assert all("usage" not in chunk for chunk in without)


async def test_an_answer_that_reaches_its_bound() -> None:
    async with serving_model() as served:
        _, found, _ = await post(served, HELLO | {"max_tokens": 2})
        assert found["choices"][0]["finish_reason"] == "length"
        assert found["choices"][0]["message"]["content"] == "It is "


async def test_the_progress_is_told_until_the_model_answers() -> None:
    async with serving_model(held=True) as served:
        assert await get(served, "/healthz") == (200, {"status": "ok"})
        assert await get(served, "/health") == (503, {"status": "finding"})
        served.startup.progress(Progress("downloading", 1000, 250, download_rate=50, peers=3))
        status, found = await get(served, "/startupz")
        assert (status, found["phase"], found["model"]) == (503, "transferring", NAME)
        assert found["transfer"] == {
            "step": "downloading",
            "done": 250,
            "total": 1000,
            "rate": 50,
            "eta": 15.0,
            "peers": 3,
            "waiting_for": "",
        }
        status, found, headers = await post(served, HELLO)
        assert (status, found["error"]["code"], headers["Retry-After"]) == (503, "model_loading", "2")
        assert "transferring, 25 % of 1000 bytes" in found["error"]["message"]
        status, listed = await get(served, "/v1/models")
        assert (listed["data"][0]["id"], listed["data"][0]["state"]) == (NAME, "transferring")
        assert (await get(served, "/readyz"))[0] == 503
        served.source.arrived.set()
        await served.ready.wait()
        for path in ("/health", "/readyz", "/startupz"):
            assert (await get(served, path))[0] == 200
        status, listed = await get(served, f"/v1/models/{NAME}")
        assert (status, listed["state"]) == (200, "ready")
        assert (await post(served, HELLO))[0] == 200
    assert served.source.reports == ["answered", "gone"]


async def test_requests_take_turns_and_further_ones_are_refused() -> None:
    model = ScriptedModel()
    model.hold()
    async with serving_model(model, most_waiting=1) as served:
        first = asyncio.create_task(post(served, HELLO))
        await eventually(lambda: len(model.asked) == 1, what="the first request has its turn")
        second = asyncio.create_task(post(served, {"messages": [{"role": "user", "content": "second"}]}))
        metrics = ""
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
            while "p2pmodel_answers_waiting 1.0" not in metrics:
                async with session.get(f"{served.url}/metrics") as response:
                    metrics = await response.text()
        assert "p2pmodel_answers_running 1.0" in metrics
        status, found, headers = await post(served, HELLO)
        assert (status, found["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert len(model.asked) == 1, "one at a time"
        model.release(6)
        assert (await first)[0] == (await second)[0] == 200
        assert [turns[0].text for turns, _ in model.asked] == ["hello", "second"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_its_answer(stream: bool) -> None:
    model = ScriptedModel(words=["word "] * 100)
    model.hold()
    async with serving_model(model) as served:
        leaving = asyncio.create_task(post(served, HELLO | {"stream": stream}))
        await eventually(lambda: len(model.asked) == 1, what="it is asked")
        if stream:
            model.release(1)
            await eventually(lambda: len(model.said) == 1, what="it has begun")
        leaving.cancel()
        assert await asyncio.to_thread(model.ended.acquire, True, PATIENCE), "the answer has ended"
        model.release(100)
        assert (await post(served, HELLO))[0] == 200
        async with aiohttp.ClientSession() as session, session.get(f"{served.url}/metrics") as response:
            assert 'p2pmodel_answers_total{outcome="left"} 1.0' in await response.text()


async def test_a_client_that_leaves_while_it_waits_is_not_answered() -> None:
    model = ScriptedModel()
    model.hold()
    async with serving_model(model) as served:
        first = asyncio.create_task(post(served, HELLO))
        await eventually(lambda: len(model.asked) == 1, what="it is asked")
        leaving = asyncio.create_task(post(served, {"messages": [{"role": "user", "content": "leaves"}]}))
        metrics = ""
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
            while "p2pmodel_answers_waiting 1.0" not in metrics:
                async with session.get(f"{served.url}/metrics") as response:
                    metrics = await response.text()
            leaving.cancel()
            while "p2pmodel_answers_waiting 0.0" not in metrics:
                async with session.get(f"{served.url}/metrics") as response:
                    metrics = await response.text()
        model.release(3)
        assert (await first)[0] == 200
        assert len(model.asked) == 1


async def test_a_failure_has_its_status_before_the_stream_begins() -> None:
    model = ScriptedModel(fails=PromptTooLong("the conversation has 9 tokens, and the model has room for 8"))
    async with serving_model(model) as served:
        for stream in (False, True):
            status, found, _ = await post(served, HELLO | {"stream": stream})
            assert (status, found["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_failure_in_a_stream_ends_it_and_tells_nothing_of_the_machine() -> None:
    model = ScriptedModel(fails=LocalResource("/secret/path: the GPU has not enough memory"), fails_at=1)
    async with serving_model(model) as served:
        *chunks, last = await events(served, HELLO | {"stream": True})
        assert last == "[DONE]"
        assert chunks[-1]["error"]["type"] == "server_error"
        assert "secret" not in json.dumps(chunks)


async def test_pictures_for_a_model_of_text() -> None:
    url = f"data:image/png;base64,{base64.b64encode(b'x').decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    async with serving_model(ScriptedModel(takes_images=False)) as served:
        status, found, _ = await post(served, {"messages": [{"role": "user", "content": parts}]})
        assert (status, found["error"]["param"]) == (400, "messages")
        assert "takes text only" in found["error"]["message"]


async def test_another_model_is_not_here() -> None:
    async with serving_model() as served:
        status, found, _ = await post(served, HELLO | {"model": "gpt-9"})
        assert (status, found["error"]["code"]) == (404, "model_not_found")
        assert (await get(served, "/v1/models/gpt-9"))[0] == 404
        assert (await post(served, HELLO | {"model": f"{NAME}@main"}))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/embeddings", 404), ("GET", "/v1/chat/completions", 405), ("DELETE", "/v1/models", 405)],
)
async def test_other_paths_and_methods_are_refused_in_the_same_format(method: str, path: str, status: int) -> None:
    async with (
        serving_model() as served,
        aiohttp.ClientSession() as session,
        session.request(method, served.url + path) as response,
    ):
        assert response.status == status
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_the_key_opens_all_but_the_probes_and_the_page() -> None:
    async with serving_model(key=KEY) as served:
        status, found, headers = await post(served, HELLO)
        assert (status, found["error"]["code"]) == (401, "invalid_api_key")
        assert headers["WWW-Authenticate"] == "Bearer"
        assert KEY not in json.dumps(found)
        for path in ("/v1/models", "/metrics"):
            assert (await get(served, path))[0] == 401
        for path in ("/health", "/healthz", "/readyz", "/startupz"):
            assert (await get(served, path))[0] == 200
        assert (await post(served, HELLO, Authorization=f"Bearer {KEY}"))[0] == 200


async def test_pages_of_other_sites_are_refused() -> None:
    async with serving_model() as served:
        status, _, _ = await post(served, HELLO, Origin="http://evil.example")
        assert status == 403
        status, _, _ = await post(served, HELLO, Host="evil.example")
        assert status == 403
