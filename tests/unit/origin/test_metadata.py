"""Bounds on what a mirror may say about a snapshot, and the completeness of a listing."""

import asyncio
import gzip
import itertools
import json

import pytest
from aiohttp import web
from pydantic import SecretStr

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import IntegrityError, Unavailable
from p2pmodel.origin import json_body, metadata
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of

MAIN = Reference.parse("org/model")


class Hostile(FakeHub):
    """A hub with another answer for its information (`info`) or its tree (`tree`), if given."""

    def __init__(self, *args, info=None, tree=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.info, self.tree = info, tree

    async def _info(self, request):
        return await self.info(request) if self.info else await super()._info(request)

    async def _tree(self, request):
        return await self.tree(request) if self.tree else await super()._tree(request)


async def refused(snapshot, open_origin, error, match, **answers):
    """The hostile hub is refused for the reason `match`, and the next mirror is used. Returns the hostile hub."""
    async with Hostile(snapshot, **answers) as hostile, FakeHub(snapshot) as honest:
        async with open_origin(hostile) as origin:
            with pytest.raises(error, match=match):
                await origin.manifest(MAIN)
        asked = len(hostile.requests)
        async with open_origin(hostile, honest) as origin:
            assert await origin.manifest(MAIN) == snapshot.manifest
        hostile.requests = hostile.requests[:asked]
        return hostile


async def endless(request, block, **headers):
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    await response.prepare(request)
    while True:
        await response.write(block)


async def test_a_gzip_bomb_is_refused(snapshot, open_origin):
    bomb = gzip.compress(bytes(100 << 20))

    async def answer(_):
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

    await refused(snapshot, open_origin, Unavailable, "its listing is larger than 16 MiB", info=answer)
    await refused(snapshot, open_origin, Unavailable, "its listing is larger than 16 MiB", tree=answer)


async def test_a_body_without_end_is_refused(snapshot, open_origin):
    async def answer(request):
        return await endless(request, b'"' + b"a" * (1 << 20))

    await refused(snapshot, open_origin, Unavailable, "its listing is larger than 16 MiB", info=answer)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "1" * 10_000, '"\\ud800"', "NaN", "[1e999]", ""])
async def test_json_that_no_hub_sends_is_refused(snapshot, open_origin, text):
    async def answer(_):
        return web.Response(text=text, content_type="application/json")

    await refused(snapshot, open_origin, Unavailable, "its response is not a hub's", info=answer)
    await refused(snapshot, open_origin, Unavailable, "its response is not a hub's", tree=answer)


async def test_a_body_of_many_small_values_is_refused(snapshot, open_origin, monkeypatch):
    monkeypatch.setattr(json_body, "MAX_VALUES", 10_000)

    async def answer(_):
        return web.Response(text="[" + "{}," * 10_000 + "{}]", content_type="application/json")

    await refused(snapshot, open_origin, Unavailable, "more than 10000 values", tree=answer)


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip"])
async def test_other_encodings_are_refused(snapshot, open_origin, encoding):
    async def answer(_):
        return web.Response(body=b"data", headers={"Content-Encoding": encoding})

    await refused(snapshot, open_origin, Unavailable, "compressed body that was not requested", info=answer)


@pytest.mark.parametrize("damage", [lambda d: d[:-9], lambda d: d[:5] + b"xxxxxx" + d[11:], lambda d: d + b"more"])
async def test_damaged_gzip_is_refused(snapshot, open_origin, damage):
    data = damage(gzip.compress(json.dumps(snapshot.tree()).encode()))

    async def answer(_):
        return web.Response(body=data, headers={"Content-Encoding": "gzip"})

    await refused(snapshot, open_origin, Unavailable, "gzip body|before the end", tree=answer)


async def test_gzip_is_accepted(snapshot, open_origin):
    async def answer(request):
        assert request.headers["Accept-Encoding"] == "gzip"
        data = gzip.compress(json.dumps(snapshot.tree()).encode())
        return web.Response(body=data, headers={"Content-Encoding": "gzip"})

    async with Hostile(snapshot, tree=answer) as hub, open_origin(hub) as origin:
        assert await origin.manifest(MAIN) == snapshot.manifest


async def test_a_page_that_follows_itself_is_requested_once(snapshot, open_origin):
    async def answer(request):
        return web.json_response(snapshot.tree(), headers={"Link": f'<{request.url}>; rel="next"'})

    hub = await refused(snapshot, open_origin, Unavailable, "its listing repeats a page", tree=answer)
    assert len(hub.requests) <= 3


async def test_the_same_entries_under_new_addresses_are_a_repeated_page(snapshot, open_origin):
    numbers = itertools.count()

    async def answer(request):
        link = f'<{request.url.update_query(cursor=next(numbers))}>; rel="next"'
        return web.json_response(snapshot.tree(), headers={"Link": link})

    hub = await refused(snapshot, open_origin, Unavailable, "its listing repeats a page", tree=answer)
    assert len(hub.requests) <= 4


@pytest.mark.parametrize(("name", "unit"), [("MAX_PAGES", "pages"), ("MAX_ENTRIES", "entries")])
async def test_a_listing_without_end_is_refused(snapshot, open_origin, monkeypatch, name, unit):
    monkeypatch.setattr(metadata, name, 20)
    numbers = itertools.count()

    async def answer(request):
        number = next(numbers)
        entry = {"type": "file", "path": f"{number}", "size": 1, "oid": "0" * 40}
        link = f'<{request.url.update_query(cursor=number)}>; rel="next"'
        return web.json_response([entry], headers={"Link": link})

    hub = await refused(snapshot, open_origin, Unavailable, f"more than 20 {unit}", tree=answer)
    assert len(hub.requests) == 22


async def test_all_pages_together_have_a_time_limit_and_the_end_stops_the_work(snapshot, open_origin):
    numbers = itertools.count()

    async def answer(request):
        number = next(numbers)
        await asyncio.sleep(0.05)
        entry = {"type": "file", "path": f"{number}", "size": 1, "oid": "0" * 40}
        link = f'<{request.url.update_query(cursor=number)}>; rel="next"'
        return web.json_response([entry], headers={"Link": link})

    limits = {"connect_timeout": 0.1, "read_timeout": 0.2}
    async with Hostile(snapshot, tree=answer) as hub, open_origin(hub, **limits) as origin:
        with pytest.raises(Unavailable, match="no complete response within"):
            await origin.manifest(MAIN)
        await asyncio.sleep(0.3)  # a request that was on its way is counted once it arrives
        asked = len(hub.requests)
        await asyncio.sleep(0.3)
        assert len(hub.requests) == asked


async def test_cancellation_stops_an_endless_listing(snapshot, open_origin):
    numbers = itertools.count()

    async def answer(request):
        number = next(numbers)
        entry = {"type": "file", "path": f"{number}", "size": 1, "oid": "0" * 40}
        link = f'<{request.url.update_query(cursor=number)}>; rel="next"'
        return web.json_response([entry], headers={"Link": link})

    async with Hostile(snapshot, tree=answer) as hub, open_origin(hub, read_timeout=20) as origin:
        task = asyncio.create_task(origin.manifest(MAIN))
        await eventually(lambda: len(hub.requests) >= 10, what="ten requests")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asked = len(hub.requests)
        await asyncio.sleep(0.2)
        assert len(hub.requests) <= asked + 1


# completeness


async def test_the_tree_decides_where_the_information_is_cut(open_origin):
    many = snapshot_of({f"{number:04}.bin": b"%d" % number for number in range(1301)})

    class Cut(FakeHub):
        async def _info(self, request):
            info = json.loads((await super()._info(request)).text)
            return web.json_response(info | {"siblings": info["siblings"][:1000]})

    async with Cut(many) as hub, open_origin(hub) as origin:
        for ref in (MAIN, Reference.parse(f"org/model@{many.commit}")):
            assert await origin.manifest(ref) == many.manifest


async def test_a_tree_that_lacks_a_file_of_the_model_is_refused(snapshot, open_origin):
    async def answer(_):
        return web.json_response(snapshot.tree()[1:])  # a proxy that drops the Link header, for instance

    await refused(
        snapshot, open_origin, IntegrityError, "its listing lacks config.json, which the model has", tree=answer
    )


async def test_a_mirror_without_trees_may_have_small_snapshots_only(snapshot, open_origin):
    async def missing(_):
        raise web.HTTPNotFound

    async with Hostile(snapshot, tree=missing) as hub, open_origin(hub) as origin:
        assert await origin.manifest(MAIN) == snapshot.manifest
    many = snapshot_of({f"{number:04}.bin": b"%d" % number for number in range(1000)})
    async with Hostile(many, tree=missing) as hub, open_origin(hub) as origin:
        with pytest.raises(IntegrityError, match="its list of 1000 files may be cut"):
            await origin.manifest(MAIN)


# the next page, and the token


@pytest.mark.parametrize("prefix", ["", "/hf"])
async def test_the_next_page_is_asked_of_the_mirror_whatever_host_its_link_names(snapshot, open_origin, prefix):
    async with FakeHub(snapshot) as other:

        class Linking(FakeHub):
            async def _tree(self, request):
                response = await super()._tree(request)
                if "Link" in response.headers:
                    link = response.headers["Link"].replace(self.url, other.url)
                    response.headers["Link"] = link.replace("127.0.0.1", "localhost")
                return response

        async with Linking(snapshot, page=2, token="hf_secret", prefix=prefix) as hub:
            mirror = MirrorSettings(name="a", endpoint=hub.url, token=SecretStr("hf_secret"))
            async with open_origin(mirror) as origin:
                assert (await origin.manifest(MAIN)).files == snapshot.manifest.files
        assert other.requests == []


@pytest.mark.parametrize(
    "link",
    ["http://127.0.0.1:99999999/x", "http://[::1/api/x", "/other/path", "/api/a\u00e9b", "/api/a b"],
)
async def test_an_unusable_link_is_refused(snapshot, open_origin, link):
    async def answer(_):
        return web.json_response(snapshot.tree(), headers={"Link": f'<{link}>; rel="next"'})

    await refused(snapshot, open_origin, Unavailable, "continues at an unusable address", tree=answer)


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest", "http://10.0.0.1/api", "http://127.0.0.1:99999999/", "gopher://x/"],
)
async def test_a_redirect_into_a_private_network_is_refused(snapshot, open_origin, target):
    async def answer(_):
        return web.Response(status=302, headers={"Location": target})

    why = "it leads to (169|10)|it redirects to an unusable address"
    await refused(snapshot, open_origin, Unavailable, why, info=answer)


async def test_a_redirect_to_another_host_gets_no_token(snapshot, open_origin):
    async with FakeHub(snapshot) as other:

        async def answer(request):
            return web.Response(status=307, headers={"Location": f"{other.url}{request.path_qs}"})

        async with Hostile(snapshot, info=answer) as hub:
            mirror = MirrorSettings(name="a", endpoint=hub.url, token=SecretStr("hf_secret"))
            async with open_origin(mirror) as origin:
                assert await origin.manifest(MAIN) == snapshot.manifest
    assert [request.token for request in other.requests] == [""]
