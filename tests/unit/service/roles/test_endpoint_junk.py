"""Arbitrary bytes sent to the hub endpoint of a node: it answers or closes the connection, and continues to serve.

500 is never a response. 501 means that a path is no model; 503 (or 502, 504) is allowed only if no mirror responds, for
files that the cache does not hold.
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.http.exposition import Traffic
from p2pmodel.service.roles.hub_endpoint import HubRole, serving_hub
from tests.support.fake_hub import FakeHub
from tests.support.http_junk import drawn
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_machine import Machine, machine
from tests.support.raw_http import Answer, line, request

__all__ = ["machine"]

LOG = logging.getLogger(__name__)
SNAPSHOT = snapshot_of({"config.json": b"{}", "model.safetensors": bytes(range(256)) * 9000})
FILE = "/org/model/resolve/main/model.safetensors"
TOKEN = "sesame-sesame"
NOWHERE = "http://127.0.0.1:9"
QUICK = HttpSettings(header_timeout=1, body_timeout=1, stall_timeout=5)
REQUESTS = 1000
AT_ONCE = 16
NO_MODEL = 501
NO_MIRROR = {502, 503, 504}


@asynccontextmanager
async def endpoint(machine: Machine, *, token: str | None = None, mirror: bool = True) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        url = (await stack.enter_async_context(FakeHub(SNAPSHOT))).url if mirror else NOWHERE
        machine.use(mirrors=(MirrorSettings(name="hub", endpoint=url),), offline=False, http=QUICK)
        node = await stack.enter_async_context(machine.running())
        role = HubRole(ListenAddress("127.0.0.1", 0), token, machine.root / "access.jsonl")
        found = await stack.enter_async_context(serving_hub(node, role, machine.notes.append, 0.1, Traffic()))
        assert found is not None
        yield found


@pytest.fixture
def dice() -> random.Random:
    """Other junk in every run; a failing run prints how to have the same again."""
    seed = int(os.environ.get("P2PMODEL_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    LOG.warning("P2PMODEL_TEST_SEED=%d", seed)
    return random.Random(seed)


async def sent(url: str, junk: bytes) -> Answer:
    """The response to `junk`, at least the beginning of its body; empty if the connection was closed."""
    async with line(url) as client:
        await client.send(junk)
        try:
            head = await client.head()
            if head.status == 100:
                head = await client.head()
            length = int(head.headers.get("content-length", 0))
            if junk.startswith(b"HEAD ") or head.status < 400 or not length:
                return head
            return Answer(head.raw + await client.body(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return Answer(b"")


@pytest.mark.parametrize(
    ("token", "mirror"), [(None, True), (TOKEN, True), (None, False)], ids=["open", "token", "no mirror"]
)
async def test_junk(
    machine: Machine, dice: random.Random, token: str | None, mirror: bool, caplog: pytest.LogCaptureFixture
) -> None:
    way_in = [("Authorization", f"Bearer {token}")] if token else []
    good = request(FILE, headers=[*way_in, ("Range", "bytes=1000-1009")])
    allowed = {NO_MODEL} | (set() if mirror else NO_MIRROR)
    async with endpoint(machine, token=token, mirror=mirror) as url:
        gate = asyncio.Semaphore(AT_ONCE)

        async def attempt(junk: bytes) -> None:
            async with gate:
                answer = await sent(url, junk)
            assert answer.status < 500 or answer.status in allowed, (junk[:600], answer.raw[:600])
            if answer.status >= 400 and answer.body:
                assert json.loads(answer.body).keys() in ({"error"}, {"code", "message", "hint"}), (junk, answer.raw)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(REQUESTS):
                tasks.create_task(attempt(drawn(dice, token)))
        if mirror:
            async with line(url) as client:
                await client.send(good)
                assert (await client.answer()).body == SNAPSHOT.contents["model.safetensors"][1000:1010]
    assert not [note for note in machine.notes if "internal error" in note]
    assert "Traceback" not in caplog.text


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /api/models/org/model/paths-info/main HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SMUGGLING = [
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + HIDDEN,
    POST + b"Content-Length: 5, 5\r\n\r\nhello" + HIDDEN,
    POST + b"Content-Length: +5\r\n\r\nhello" + HIDDEN,
    POST + b"Content-Length : 5\r\n\r\nhello" + HIDDEN,
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + HIDDEN,
    POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN,
    POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + HIDDEN,
    POST + b"X: y\r\n Content-Length: 5\r\n\r\nhello" + HIDDEN,
    POST + b"X: y\nContent-Length: 5\r\n\r\nhello" + HIDDEN,
    POST + b"X\x00: y\r\n\r\n" + HIDDEN,
]


@pytest.mark.parametrize("smuggling", SMUGGLING)
async def test_an_ambiguous_request_ends_the_connection(machine: Machine, smuggling: bytes) -> None:
    async with endpoint(machine) as url, line(url) as client:
        await client.send(smuggling)
        told = await client.end()
        assert 400 <= told.status < 500 or told.raw == b"", told.raw
        assert told.raw.count(b"HTTP/1.") <= 1
        assert b"hidden" not in (machine.root / "access.jsonl").read_bytes()
