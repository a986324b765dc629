"""Requests for files that are being downloaded: which wait, and which get "try again"."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from p2pmodel.errors import NotYet
from p2pmodel.http.server import serving
from p2pmodel.service.hub.endpoint_access import errors
from p2pmodel.service.hub.relay import SHORT, with_patience
from tests.support.eventually import eventually


class Coming:
    """A file that appears after `after` requests."""

    def __init__(self, after: int) -> None:
        self.after, self.asked, self.waiting = after, 0, 0

    async def answer(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.asked <= self.after:
            raise NotYet("it is to come", hint="ask again")
        return web.Response(text="here")

    @asynccontextmanager
    async def served(self) -> AsyncIterator[tuple[ClientSession, str]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            self.waiting += 1
            try:
                return await with_patience(request, self.answer)
            finally:
                self.waiting -= 1

        app = web.Application(middlewares=[errors])
        app.router.add_get("/", handler)
        async with serving(app, "127.0.0.1", 0, grace=0.1) as url, ClientSession() as http:
            yield http, url


@pytest.mark.parametrize("wanted", ["bytes=0-100000", f"bytes=5-{SHORT + 4}", "bytes=-8"])
async def test_a_short_part_is_waited_for(wanted: str) -> None:
    file = Coming(after=2)
    async with file.served() as (http, url), http.get(url, headers={"Range": wanted}) as answer:
        assert (answer.status, await answer.text()) == (200, "here")


@pytest.mark.parametrize("wanted", [None, "bytes=0-", "bytes=5-", f"bytes=0-{SHORT}", "lines=1-2"])
async def test_longer_ranges_get_try_again(wanted: str | None) -> None:
    file = Coming(after=1)
    headers = {"Range": wanted} if wanted else {}
    async with file.served() as (http, url), http.get(url, headers=headers) as answer:
        assert (answer.status, file.asked) == (429, 1)


async def test_the_wait_ends_with_its_client() -> None:
    file = Coming(after=1_000_000)
    async with file.served() as (http, url):
        asking = asyncio.create_task(http.get(url, headers={"Range": "bytes=0-9"}).__aenter__())
        await eventually(lambda: file.asked > 1, what="it waits")
        asking.cancel()
        await http.close()
        await eventually(lambda: not file.waiting, what="it does not wait any more")
