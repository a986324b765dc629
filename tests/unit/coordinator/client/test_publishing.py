"""Publishing at coordinators, repeated after every kind of answer."""

import asyncio
import time
from collections.abc import Callable

import pytest
from aiohttp import web

from p2pmodel.coordinator.client import publishing
from p2pmodel.coordinator.client.publishing import keep_published, publish, publish_source
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.errors import (
    AccessDenied,
    BadTorrent,
    Conflict,
    InvalidInput,
    NoSpace,
    NotFound,
    P2PModelError,
    Unavailable,
)
from p2pmodel.http.server import serving
from p2pmodel.swarm.torrents import parse
from tests.support.coordinators import (
    CLOSED,
    FOREVER,
    PUBLISHERS,
    RAW,
    TOKEN,
    answering,
    client,
    coordinator,
    tokens,
    torrent,
)
from tests.support.eventually import PATIENCE, eventually


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (
            lambda: web.json_response({"message": "no"}, status=401),
            AccessDenied,
            "no; check publish_token_file",
        ),
        (lambda: web.json_response({"message": "taken"}, status=409), Conflict, "taken"),
        (lambda: web.json_response({"message": "what?"}, status=400), InvalidInput, "what?"),
        (lambda: web.Response(status=507), Unavailable, "it answered 507 without saying why"),
        (lambda: web.Response(status=307, headers={"Location": CLOSED}), Unavailable, "it answered 307"),
    ],
)
async def test_a_refused_publication_reports_the_reason(
    answer: Callable[[], web.Response], error: type[P2PModelError], text: str
) -> None:
    async with answering(answer) as url:
        with pytest.raises(error) as caught:
            await publish(client(url), RAW)
        assert type(caught.value) is error
        assert str(caught.value).startswith(f"coordinator {url}: {text}")


async def test_publishing_to_an_unreachable_coordinator() -> None:
    with pytest.raises(Unavailable) as caught:
        await publish(client(CLOSED), RAW)
    assert str(caught.value) == f"coordinator {CLOSED} cannot be reached: connection refused"


async def test_publishing_is_bounded() -> None:
    async with answering(torrent(RAW), delay=FOREVER) as url:
        with pytest.raises(Unavailable, match=r"cannot be reached: timed out waiting for an answer$"):
            await publish(client(url), RAW, timeout=0.1)


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
    task = asyncio.create_task(
        keep_published(list(map(client, urls)), RAW, ["main"], on_note=notes.append, every=60, sleep=sleep)
    )
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.done()


async def test_a_coordinator_that_fails_is_tried_again_with_growing_bounded_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = iter([*[Unavailable("down")] * 8, None, Unavailable("down"), None])

    async def scripted(*_arguments: object, **_options: object) -> None:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(publishing, "publish", scripted)
    sleep, notes = Sleeper(11), []
    await run_until_cancelled("http://c:1", sleep=sleep, notes=notes)
    assert sleep.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 1, 60]
    down, up = "coordinator http://c:1: not published: down", "coordinator http://c:1: published"
    assert notes == [down, up, down, up]


async def test_a_restarted_coordinator_gets_its_catalog_back() -> None:
    async with coordinator() as (url, _):
        port = int(url.rpartition(":")[2])
    notes: list[str] = []
    task = asyncio.create_task(keep_published([client(url)], RAW, ["main"], on_note=notes.append, every=0.05))
    for _ in range(2):
        async with coordinator(port=port) as (_, catalog):
            await eventually(lambda c=catalog: bool(c.publications()), what="published")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert f"coordinator {url}: published" in notes


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
async def test_the_source_for_leaseholders_is_published_too(source: Source | None, known: Source | None) -> None:
    sources = Sources(time.monotonic)
    async with serving(
        coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS, sources=sources), "127.0.0.1", 0
    ) as url:
        await publish(client(url), RAW, source=source)
    assert sources.of(parse(RAW).info_hash) == ((known,) if known else ())


@pytest.mark.parametrize("endpoint", ["/source", "ftp://s.test", "http://s.test?x=1", "nonsense"])
async def test_an_endpoint_that_others_cannot_reach_is_refused(endpoint: str) -> None:
    sources = Sources(time.monotonic)
    async with serving(
        coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS, sources=sources), "127.0.0.1", 0
    ) as url:
        with pytest.raises(InvalidInput, match="P2PModel-Source: "):
            await publish(client(url), RAW, source=Source(endpoint))
    assert sources.of(parse(RAW).info_hash) == ()


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ({"code": "no_space", "message": "full", "hint": "withdraw one"}, NoSpace, "full; withdraw one"),
        ({"code": "bad_torrent", "message": "no bencode"}, BadTorrent, "no bencode"),
        ({"code": "from_the_future", "message": "new"}, Conflict, "new"),
    ],
)
async def test_an_error_of_a_coordinator_is_restored_by_its_code(
    answer: dict[str, str], error: type[P2PModelError], text: str
) -> None:
    async with answering(lambda: web.json_response(answer, status=409)) as url:
        with pytest.raises(error) as caught:
            await publish(client(url), RAW)
    assert type(caught.value) is error
    assert str(caught.value) == f"coordinator {url}: {text}"


async def test_a_member_names_the_source_of_a_torrent_that_is_in_the_catalog() -> None:
    sources, catalog = Sources(time.monotonic), Catalog()
    app = coordinator_app(Tracker(), catalog, credentials=tokens(TOKEN), sources=sources)
    info_hash, source = parse(RAW).info_hash, Source("http://s.test:1/source", "t0ken")
    async with serving(app, "127.0.0.1", 0) as url:
        member = client(url, member=TOKEN, publish="")
        with pytest.raises(NotFound):
            await publish_source(member, info_hash, source)
        await publish(client(url), RAW)
        await publish_source(member, info_hash, source)
        with pytest.raises(AccessDenied):
            await publish_source(client(url, publish=""), info_hash, source)
        with pytest.raises(AccessDenied, match="a member does not publish"):
            await publish(member, RAW)
    assert sources.of(info_hash) == (source,)
