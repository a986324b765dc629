"""Asking coordinators that are honest, slow, broken or lying; publishing to them, again and again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from p2pmodel.coordinator.client import catalog as catalog_client
from p2pmodel.coordinator.client.catalog import (
    announce_url,
    announcing_as,
    find,
    in_zone,
    keep_published,
    public_name,
    publish,
)
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog import Catalog
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.sources import Source, Sources
from p2pmodel.core.names import Reference
from p2pmodel.errors import AccessDenied, Conflict, InvalidInput, P2PModelError, Unavailable
from p2pmodel.http.server import serving
from p2pmodel.swarm.torrents import parse
from tests.support.eventually import eventually
from tests.support.torrent_files import COMMIT, SMALL, torrent_of

MAIN = Reference.parse("org/tiny@main")
TOKEN = "s3cret-token"
RAW = torrent_of(SMALL)
CLOSED = "http://127.0.0.1:1"


@asynccontextmanager
async def coordinator(token: str | None = None, *, port: int = 0) -> AsyncIterator[tuple[str, Catalog]]:
    catalog = Catalog()
    async with serving(coordinator_app(Tracker(), catalog, token=token), "127.0.0.1", port) as base:
        yield base, catalog


@asynccontextmanager
async def answering(answer: Callable[[], web.Response], *, delay: float = 0.0) -> AsyncIterator[str]:
    closing = asyncio.Event()

    async def handle(_request: web.Request) -> web.Response:
        # A client that leaves does not end its handler: the end of this context does.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closing.wait(), delay)
        return answer()

    app = web.Application()
    app.router.add_route("*", "/catalog", handle)
    async with serving(app, "127.0.0.1", 0, grace=0.1) as base:
        try:
            yield base
        finally:
            closing.set()


def torrent(raw: bytes) -> Callable[[], web.Response]:
    return lambda: web.Response(body=raw, content_type="application/x-bittorrent")


async def test_what_is_published_is_found() -> None:
    async with coordinator() as (url, catalog):
        await publish(url, RAW, ["main", "refs/pr/1"])
        assert catalog.revisions(catalog.publications()[0]) == ["main", "refs/pr/1"]
        for ref in (MAIN, Reference.parse(f"org/tiny@{COMMIT}"), Reference.parse("org/tiny@refs/pr/1")):
            assert (await find(ref, [url], 5)).torrent == RAW


async def test_a_format_can_be_asked_for() -> None:
    async with coordinator() as (url, _):
        await publish(url, RAW, ["main"])
        hybrid = torrent_of(SMALL, "hybrid")
        await publish(url, hybrid)
        assert (await find(MAIN, [url], 5, format="hybrid")).torrent == hybrid


async def test_nobody_to_ask() -> None:
    answer = await find(MAIN, [], 5)
    assert (answer.torrent, answer.reasons) == (None, ())


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
        found = await find(MAIN, [bad, good], 5)
        assert found.torrent == RAW
        assert found.reasons[0].startswith(f"{bad}: ")
        assert reason in found.reasons[0]


async def test_a_pinned_reference_takes_no_other_commit() -> None:
    async with answering(torrent(RAW)) as url:
        answer = await find(Reference.parse(f"org/tiny@{'a' * 40}"), [url], 5)
        assert answer.torrent is None
        assert answer.reasons == (f"{url}: it answered with a torrent of org/tiny@{COMMIT}",)


async def test_every_coordinator_without_an_answer_says_why() -> None:
    async with coordinator() as (empty, _), coordinator(TOKEN) as (closed, _):
        answer = await find(MAIN, [empty, closed, CLOSED], 5)
        assert answer.torrent is None
        assert answer.reasons == (
            f"{empty}: org/tiny is not in this catalog",
            f"{closed}: this coordinator requires its token",
            f"{CLOSED}: connection refused",
        )


async def test_a_hanging_coordinator_delays_nobody_else() -> None:
    async with answering(torrent(RAW), delay=60) as hanging, answering(torrent(RAW)) as good:
        started = time.monotonic()
        assert (await find(MAIN, [hanging, good], 30)).torrent == RAW
        assert time.monotonic() - started < 5
        answer = await find(MAIN, [hanging], 0.2)
        assert answer.torrent is None
        assert answer.reasons[0] in (
            f"{hanging}: no answer within 0.2 s",
            f"{hanging}: timed out waiting for an answer",
        )


async def test_cancelling_leaves_nothing_behind() -> None:
    async with answering(torrent(RAW), delay=60) as hanging:
        task = asyncio.create_task(find(MAIN, [hanging], 30))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert still_asking() == []


async def test_the_first_good_answer_ends_the_others() -> None:
    async with answering(torrent(RAW), delay=60) as hanging, answering(torrent(RAW)) as good:
        await find(MAIN, [hanging, good], 30)
        assert still_asking() == []


def still_asking() -> list[str]:
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name == catalog_client._ask.__qualname__]


async def test_a_token_in_the_url_or_beside_it_opens_and_is_never_shown() -> None:
    async with coordinator(TOKEN) as (url, _):
        await publish(f"{url}/{TOKEN}", RAW, ["main"])
        await publish(url, RAW, token=TOKEN)
        assert (await find(MAIN, [f"{url}/{TOKEN}"], 5)).torrent == RAW
        answer = await find(Reference.parse("org/none"), [f"{url}/{TOKEN}"], 5)
        assert answer.reasons == (f"{url}: org/none is not in this catalog",)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (lambda: web.json_response({"message": "no"}, status=401), AccessDenied, "no; put its token into"),
        (lambda: web.json_response({"message": "taken"}, status=409), Conflict, "taken"),
        (lambda: web.json_response({"message": "what?"}, status=400), InvalidInput, "what?"),
        (lambda: web.Response(status=507), Unavailable, "it answered 507 without saying why"),
        (lambda: web.Response(status=307, headers={"Location": CLOSED}), Unavailable, "it answered 307"),
    ],
)
async def test_a_refused_publication_says_why(
    answer: Callable[[], web.Response], error: type[P2PModelError], text: str
) -> None:
    async with answering(answer) as url:
        with pytest.raises(error) as caught:
            await publish(f"{url}", RAW)
        assert type(caught.value) is error
        assert str(caught.value).startswith(f"coordinator {url}: {text}")


async def test_publishing_where_nobody_listens() -> None:
    with pytest.raises(Unavailable) as caught:
        await publish(f"{CLOSED}/{TOKEN}", RAW)
    assert str(caught.value) == f"coordinator {CLOSED} cannot be reached: connection refused"


async def test_publishing_is_bounded() -> None:
    async with answering(torrent(RAW), delay=60) as url:
        with pytest.raises(Unavailable, match=r"cannot be reached: timed out waiting for an answer$"):
            await publish(url, RAW, timeout=0.1)


class Sleeper:
    """Lets a loop run step by step: every sleep is recorded; the loop ends at the last step."""

    def __init__(self, steps: int) -> None:
        self.pauses: list[float] = []
        self._steps = steps

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)
        if len(self.pauses) >= self._steps:
            raise asyncio.CancelledError


async def run_until_cancelled(*urls: str, sleep: Sleeper, notes: list[str]) -> None:
    task = asyncio.create_task(keep_published(urls, RAW, ["main"], on_note=notes.append, every=60, sleep=sleep))
    await asyncio.wait([task], timeout=20)
    assert task.done()


async def test_a_coordinator_that_fails_is_tried_again_with_growing_bounded_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = iter([*[Unavailable("down")] * 8, None, Unavailable("down"), None])

    async def scripted(*_arguments: object, **_options: object) -> None:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(catalog_client, "publish", scripted)
    sleep, notes = Sleeper(11), []
    await run_until_cancelled("http://c:1/secret", sleep=sleep, notes=notes)
    assert sleep.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 1, 60]
    down, up = "coordinator http://c:1: not published: down", "coordinator http://c:1: published"
    assert notes == [down, up, down, up]


async def test_a_restarted_coordinator_gets_its_catalog_back() -> None:
    async with coordinator() as (url, _):
        port = int(url.rpartition(":")[2])
    notes: list[str] = []
    task = asyncio.create_task(keep_published([url], RAW, ["main"], on_note=notes.append, every=0.05))
    for _ in range(2):
        async with coordinator(port=port) as (_, catalog):
            await eventually(lambda c=catalog: bool(c.publications()), seconds=10, what="published")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert f"coordinator {url}: published" in notes


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://host:6969/token", "http://host:6969"),
        ("https://user:password@host/token", "https://host"),
        ("http://[::1]:6969/token", "http://[::1]:6969"),
        ("http://[::1/token", "a malformed URL"),
    ],
)
def test_a_public_name_holds_no_secret(url: str, name: str) -> None:
    assert public_name(url) == name


async def test_a_host_that_does_not_exist() -> None:
    answer = await find(MAIN, ["http://no-such-host.invalid:1"], 5)
    assert answer.reasons == ("http://no-such-host.invalid:1: its name does not resolve (DNS)",)


def test_the_announce_url_of_a_coordinator() -> None:
    assert announce_url("http://host:6969/token/") == "http://host:6969/token/announce"


@pytest.mark.parametrize(
    ("tracker", "url"),
    [
        ("http://host/token/announce", "http://host/token/announce?role=leaseholder"),
        ("https://host/announce?key=1", "https://host/announce?key=1&role=leaseholder"),
        ("udp://host:6969/announce", "udp://host:6969/announce"),
    ],
)
def test_a_role_is_part_of_the_tracker_url_where_queries_are_understood(tracker: str, url: str) -> None:
    assert announcing_as("leaseholder", tracker) == url


@pytest.mark.parametrize(
    ("source", "known"),
    [
        (
            Source("http://s.test:1/source/", "t0ken", "10.0.0.1:6881", "rack-1"),
            Source("http://s.test:1/source", "t0ken", "10.0.0.1:6881", "rack-1"),
        ),
        (Source("http://s.test"), Source("http://s.test")),
        (None, None),
    ],
)
async def test_where_leaseholders_can_pull_is_published_too(source: Source | None, known: Source | None) -> None:
    sources = Sources(time.monotonic)
    async with serving(coordinator_app(Tracker(), Catalog(), sources=sources), "127.0.0.1", 0) as url:
        await publish(url, RAW, source=source)
    assert sources.of(parse(RAW).info_hash) == ((known,) if known else ())


@pytest.mark.parametrize("endpoint", ["/source", "ftp://s.test", "http://s.test?x=1", "nonsense"])
async def test_an_endpoint_that_nobody_could_pull_from_is_refused(endpoint: str) -> None:
    sources = Sources(time.monotonic)
    async with serving(coordinator_app(Tracker(), Catalog(), sources=sources), "127.0.0.1", 0) as url:
        with pytest.raises(InvalidInput, match="P2PModel-Source: "):
            await publish(url, RAW, source=Source(endpoint))
    assert sources.of(parse(RAW).info_hash) == ()


@pytest.mark.parametrize(
    ("tracker", "zone", "asked"),
    [
        ("http://host/announce", "", "http://host/announce"),
        ("http://host/announce", "rack-1", "http://host/announce?zone=rack-1"),
        ("https://host/t0ken/announce?key=x&y", "a b", "https://host/t0ken/announce?zone=a%20b&key=x&y"),
        ("udp://host:1/announce", "rack-1", "udp://host:1/announce"),
    ],
)
def test_a_zone_goes_to_trackers_that_take_a_query(tracker: str, zone: str, asked: str) -> None:
    assert in_zone(tracker, zone) == asked
