"""Requests to catalogs of coordinators that are sound, slow, broken or wrong."""

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web

from p2pmodel.coordinator.client import catalog as catalog_client
from p2pmodel.coordinator.client.catalog import find
from p2pmodel.coordinator.client.publishing import publish
from p2pmodel.coordinator.tokens import MEMBER_SETTING
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import AccessDenied
from tests.support.coordinators import CLOSED, FOREVER, MAIN, RAW, TOKEN, answering, client, coordinator, torrent
from tests.support.torrent_files import COMMIT, SMALL, torrent_of


async def test_a_published_torrent_is_found() -> None:
    async with coordinator() as (url, catalog):
        await publish(client(url), RAW, ["main", "refs/pr/1"])
        assert catalog.revisions(catalog.publications()[0]) == ["main", "refs/pr/1"]
        for ref in (MAIN, Reference.parse(f"org/tiny@{COMMIT}"), Reference.parse("org/tiny@refs/pr/1")):
            assert (await find(ref, [client(url)], 5)).metainfo.raw == RAW


async def test_a_format_can_be_requested() -> None:
    async with coordinator() as (url, _):
        await publish(client(url), RAW, ["main"])
        hybrid = torrent_of(SMALL, "hybrid")
        await publish(client(url), hybrid)
        assert (await find(MAIN, [client(url)], 5, format="hybrid")).metainfo.raw == hybrid


async def test_without_coordinators() -> None:
    answer = await find(MAIN, [], 5)
    assert (answer.metainfo, answer.reasons) == (None, ())


BAD: dict[str, tuple[Callable[[], web.Response], str]] = {
    "html": (lambda: web.Response(text="<html>", content_type="text/html"), "it is not canonical bencode"),
    "oversize": (torrent(b"x" * (17 << 20)), f"its answer is larger than {16 << 20} bytes"),
    "another repository": (torrent(torrent_of(SMALL, repo="org/evil")), f"a torrent of org/evil@{COMMIT}"),
    "v1": (torrent(torrent_of(SMALL, "v1")), "v1 only"),
    "cut off": (torrent(RAW[:-1]), "cut off"),
    "redirect": (
        lambda: web.Response(status=302, headers={"Location": "/other"}),
        "it answered 302 without saying why",
    ),
    "error page": (lambda: web.Response(status=500, text="oops"), "it answered 500 without saying why"),
    "odd json": (lambda: web.json_response([1], status=404), "it answered 404 without saying why"),
    "bad json": (lambda: web.Response(text="{", status=404, content_type="application/json"), "it answered 404"),
    "control characters": (
        lambda: web.json_response({"message": "a\x1b[2Jb"}, status=404),
        ": a\N{REPLACEMENT CHARACTER}[2Jb",
    ),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_answer_is_noted_and_another_coordinator_used(kind: str) -> None:
    answer, reason = BAD[kind]
    delay = 1.0 if kind == "oversize" else 0.1
    async with answering(answer) as bad, answering(torrent(RAW), delay=delay) as good:
        found = await find(MAIN, [client(bad), client(good)], 5)
        assert found.metainfo.raw == RAW
        assert found.reasons[0].startswith(f"{bad}: ")
        assert reason in found.reasons[0]


async def test_a_pinned_reference_accepts_no_other_commit() -> None:
    async with answering(torrent(RAW)) as url:
        answer = await find(Reference.parse(f"org/tiny@{'a' * 40}"), [client(url)], 5)
        assert answer.metainfo is None
        assert answer.reasons == (f"{url}: it answered with a torrent of org/tiny@{COMMIT}",)


async def test_every_coordinator_without_an_answer_is_in_the_error() -> None:
    async with coordinator() as (empty, _), coordinator(TOKEN) as (closed, _):
        answer = await find(MAIN, [client(empty), client(closed, publish=""), client(CLOSED)], 5)
        assert answer.metainfo is None
        assert answer.reasons == (
            f"{empty}: org/tiny is not in this catalog",
            f"{closed}: this coordinator requires its token",
            f"{CLOSED}: connection refused",
        )


async def test_a_hanging_coordinator_delays_no_other() -> None:
    async with answering(torrent(RAW), delay=FOREVER) as hanging, answering(torrent(RAW)) as good:
        assert (await find(MAIN, [client(hanging), client(good)], FOREVER)).metainfo.raw == RAW
        answer = await find(MAIN, [client(hanging)], 0.2)
        assert answer.metainfo is None
        assert answer.reasons[0] in (
            f"{hanging}: no answer within 0.2 s",
            f"{hanging}: timed out waiting for an answer",
        )


async def test_cancelling_leaves_no_tasks_behind() -> None:
    async with answering(torrent(RAW), delay=FOREVER) as hanging:
        task = asyncio.create_task(find(MAIN, [client(hanging)], FOREVER))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert still_asking() == []


async def test_the_first_good_answer_ends_the_others() -> None:
    async with answering(torrent(RAW), delay=FOREVER) as hanging, answering(torrent(RAW)) as good:
        await find(MAIN, [client(hanging), client(good)], 30)
        assert still_asking() == []


def still_asking() -> list[str]:
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name == catalog_client._request.__qualname__]


async def test_a_token_opens_and_is_never_shown() -> None:
    async with coordinator(TOKEN) as (url, _):
        member = client(url, member=TOKEN, publish="")
        await publish(client(url), RAW, ["main"])
        assert (await find(MAIN, [member], 5)).metainfo.raw == RAW
        answer = await find(Reference.parse("org/none"), [member], 5)
        assert answer.reasons == (f"{url}: org/none is not in this catalog",)
        assert TOKEN not in repr(member)


async def test_a_node_that_no_coordinator_accepts_is_refused() -> None:
    async with coordinator(TOKEN) as (url, _):
        with pytest.raises(AccessDenied) as caught:
            await find(MAIN, [client(url, member="wrong-token-of-a-member", publish=""), client(CLOSED)], 5)
    assert str(caught.value) == f"coordinator {url}: this coordinator requires its token; check {MEMBER_SETTING}"


async def test_a_host_that_does_not_exist() -> None:
    answer = await find(MAIN, [client("http://no-such-host.invalid:1")], 5)
    assert answer.reasons == ("http://no-such-host.invalid:1: its name does not resolve (DNS)",)
