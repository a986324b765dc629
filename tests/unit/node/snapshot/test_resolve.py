"""Resolving a fetch target: the sources of the answer, their order, and the errors without an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.catalog_messages import NAME_HEADER
from p2pmodel.coordinator.client import torrent_download
from p2pmodel.coordinator.client.torrent_download import download_torrent
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.aliases import Aliases
from p2pmodel.coordinator.server.catalog.catalog import ITSELF, Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import Reference, VersionRange
from p2pmodel.errors import AccessDenied, BadTorrent, InvalidInput, NotFound, RevisionNotFound, Unavailable, Unconfirmed
from p2pmodel.http.server import serving
from p2pmodel.node.snapshot.resolve import find_reference, find_torrent
from p2pmodel.node.snapshot.target import ResolvedTarget, TorrentTarget, parse_target
from p2pmodel.origin.origin import Origin
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.magnet import magnet_of
from tests.support.fake_hub import FakeHub
from tests.support.node_swarm import Heard, Swarm
from tests.support.stored import publish
from tests.support.torrent_files import SMALL, torrent_of

CLOSED = "http://127.0.0.1:1"
MAIN = Reference.parse("org/model")
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GivenEngine:
    """An engine source; without an engine, starting one fails the test."""

    def __init__(self, engine: Engine | None) -> None:
        self._engine = engine

    async def started(self) -> Engine:
        assert self._engine is not None, "an engine was started"
        return self._engine


class Search:
    """One node that resolves references to the snapshot of `swarm`."""

    def __init__(self, root: Path) -> None:
        self.swarm = Swarm(root)
        self.cache = self.swarm.cache()
        self.heard = Heard()
        self.trust = "coordinator"
        self.pinned = Reference.parse(f"org/model@{self.swarm.snapshot.commit}")

    def settings(self, *coordinators: str, offline: bool = False) -> Settings:
        return Settings(
            cache_dir=self.cache.root,
            mirrors=(),
            coordinators=coordinators,
            offline=offline,
            origin=OriginSettings(allowed_networks=("127.0.0.0/8",)),
            state_dir=self.swarm.root / "state",
            swarm=SwarmSettings(coordinator_timeout=0.5, magnet_timeout=0.3, trust=self.trust, foreign_trackers="any"),
        )

    async def reference(
        self, ref: Reference, *coordinators: str, mirror: str | None = CLOSED, to_serve: bool = False
    ) -> ResolvedTarget:
        """Find `ref`; `mirror` None is offline."""
        settings = self.settings(*coordinators, offline=mirror is None)
        if mirror is None:
            return await find_reference(ref, settings, self.cache, None, self.heard.reporter, to_serve=to_serve)
        listed = [MirrorSettings(name="m", endpoint=mirror)]
        async with Origin(listed, OriginSettings(connect_timeout=1, read_timeout=1, patience=0.1)) as origin:
            return await find_reference(ref, settings, self.cache, origin, self.heard.reporter, to_serve=to_serve)

    async def torrent(self, source: str, *coordinators: str, engine: Engine | None = None) -> ResolvedTarget:
        target, settings = TorrentTarget(source), self.settings(*coordinators)
        return await find_torrent(target, settings, GivenEngine(engine), None, self.heard.reporter)

    @asynccontextmanager
    async def coordinator(self, *refs: str, alias: str = "") -> AsyncIterator[str]:
        """A coordinator that has the snapshot under `refs`, and as `alias`."""
        catalog = Catalog()
        aliases = Aliases(catalog)
        async with serving(coordinator_app(Tracker(), catalog, aliases=aliases), "127.0.0.1", 0) as base:
            await catalog.publish(read_publication(self.swarm.metainfo.raw), refs)
            if alias:
                await aliases.set(Reference(MAIN.repo, alias), self.swarm.snapshot.commit, ITSELF)
            yield base


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


def answering(answer: Answer) -> AbstractAsyncContextManager[str]:
    app = web.Application()
    app.router.add_get("/{name:.*}", answer)
    return serving(app, "127.0.0.1", 0, grace=0.1)


# references


async def test_a_coordinators_torrent_is_taken_before_any_mirror(search: Search) -> None:
    async with search.coordinator("main") as url, FakeHub(search.swarm.snapshot) as hub:
        found = await search.reference(MAIN, CLOSED, url, mirror=hub.url)
        assert hub.requests == []
    assert found == ResolvedTarget(search.swarm.metainfo.manifest, found.metainfo, ("main",), vouched_by="coordinator")
    assert found.metainfo is not None
    assert found.metainfo.raw == search.swarm.metainfo.raw
    assert search.heard.notes == []


async def test_without_a_torrent_the_mirrors_are_used_and_a_note_reports_it(search: Search) -> None:
    async with search.coordinator("v1.0") as url, FakeHub(search.swarm.snapshot) as hub:
        found = await search.reference(MAIN, url, CLOSED, mirror=hub.url)
    assert (found.manifest, found.metainfo, found.refs) == (search.swarm.snapshot.manifest, None, ("main",))
    assert ([each.url for each in found.coordinators], found.vouched_by) == ([url], "mirror m")
    assert len(search.heard.notes) == 1
    note = search.heard.notes[0]
    assert note.startswith(f"no coordinator has org/model@main ({url}: ")
    assert f"{CLOSED}: connection refused" in note
    assert note.endswith("downloading from the mirrors alone")


@pytest.mark.parametrize("trust", ["coordinator", "mirrors"])
async def test_every_spelling_finds_the_same_torrent(search: Search, trust: str) -> None:
    search.trust = trust
    async with search.coordinator("main") as url, FakeHub(search.swarm.snapshot, also=("ORG/Model", "old/m")) as hub:
        for name in ("ORG/Model", "old/m", f"old/m@{search.swarm.snapshot.commit}"):
            found = await search.reference(Reference.parse(name), url, mirror=hub.url)
            assert found.manifest == search.swarm.metainfo.manifest
            assert found.metainfo is not None
            assert found.metainfo.raw == search.swarm.metainfo.raw


STABLE = Reference.parse("org/model@stable")


@pytest.mark.parametrize("trust", ["coordinator", "mirrors"])
async def test_an_alias_that_no_mirror_has_leads_to_its_commit(search: Search, trust: str) -> None:
    search.trust = trust
    async with search.coordinator("main", alias="stable") as url, FakeHub(search.swarm.snapshot) as hub:
        found = await search.reference(STABLE, url, mirror=hub.url)
    assert (found.manifest, found.refs) == (search.swarm.metainfo.manifest, ("stable",))
    assert found.metainfo is not None
    assert found.metainfo.raw == search.swarm.metainfo.raw
    # The mirror's word comes as its answer or, if that came first, as the record of it.
    assert found.vouched_by in (["coordinator"] if trust == "coordinator" else ["mirror m", "record"])


async def test_a_commit_of_an_alias_that_no_mirror_confirms_is_refused(search: Search) -> None:
    search.trust = "mirrors"
    async with search.coordinator("main", alias="stable") as url:
        with pytest.raises(Unavailable):
            await search.reference(STABLE, url)


async def test_a_name_that_is_no_alias_is_not_taken_from_a_coordinator_against_the_mirrors(search: Search) -> None:
    search.trust = "mirrors"
    async with search.coordinator("stable") as url, FakeHub(search.swarm.snapshot) as hub:
        with pytest.raises(Unconfirmed, match="no mirror confirms"):
            await search.reference(STABLE, url, mirror=hub.url)


async def test_the_error_without_a_coordinators_answer_says_that_the_name_may_be_an_alias(search: Search) -> None:
    search.trust = "mirrors"
    async with FakeHub(search.swarm.snapshot) as hub:
        with pytest.raises(RevisionNotFound, match=r"may be an alias of a coordinator.*refused"):
            await search.reference(STABLE, CLOSED, mirror=hub.url)


RANGE = VersionRange(MAIN.repo, "^1.2")


@pytest.mark.parametrize("trust", ["coordinator", "mirrors"])
async def test_a_range_is_the_name_of_its_highest_version(search: Search, trust: str) -> None:
    search.trust = trust
    for names, alias in ((("v1.3.0",), ""), ((), "v1.3.0")):
        async with search.coordinator("v2.0.0", *names, alias=alias) as url, FakeHub(search.swarm.snapshot) as hub:
            if trust == "mirrors" and names:  # the hub has no such tag
                with pytest.raises(Unconfirmed, match="no mirror confirms"):
                    await search.reference(RANGE, url, mirror=hub.url)
                continue
            found = await search.reference(RANGE, url, mirror=hub.url)
            assert (found.manifest, found.refs) == (search.swarm.metainfo.manifest, ("v1.3.0",))
            assert found.metainfo is not None


async def test_a_range_without_a_version_is_an_error_with_the_reason(search: Search) -> None:
    async with search.coordinator("main", "v1.1.0") as url:
        with pytest.raises(RevisionNotFound, match=r"no coordinator has a version that matches org/model@\^1\.2"):
            await search.reference(RANGE, url)
    with pytest.raises(Unavailable, match="connection refused"):
        await search.reference(RANGE, CLOSED)
    with pytest.raises(InvalidInput, match="give --coordinator URL"):
        await search.reference(RANGE)


async def test_a_coordinator_cannot_lead_a_range_to_another_name(search: Search) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=search.swarm.metainfo.raw, headers={NAME_HEADER: "main"})

    async with answering(answer) as url:
        with pytest.raises(Unavailable, match="the torrent of another name"):
            await search.reference(RANGE, url)


async def test_a_configuration_without_coordinators_gives_no_note(search: Search) -> None:
    async with FakeHub(search.swarm.snapshot) as hub:
        assert (await search.reference(MAIN, mirror=hub.url)).metainfo is None
    assert search.heard.notes == []


async def test_a_complete_commit_needs_no_request(search: Search) -> None:
    publish(search.cache, search.swarm.snapshot, refs=())
    async with search.coordinator() as url, FakeHub(search.swarm.snapshot) as hub:
        found = await search.reference(search.pinned, url, mirror=hub.url)
        assert hub.requests == []
    assert found == ResolvedTarget(search.swarm.snapshot.manifest, None, vouched_by="cache")


async def test_a_commit_that_is_complete_here_is_still_served_in_its_swarm(search: Search) -> None:
    publish(search.cache, search.swarm.snapshot, refs=())
    async with search.coordinator() as url:
        found = await search.reference(search.pinned, url, to_serve=True)
        assert found.metainfo is not None
    alone = await search.reference(search.pinned, CLOSED, to_serve=True)
    assert alone == ResolvedTarget(search.swarm.snapshot.manifest, None, vouched_by="cache")


@pytest.mark.parametrize("held", ["nothing", "a part"])
async def test_an_incomplete_commit_is_requested(search: Search, held: str) -> None:
    if held == "a part":
        publish(search.cache, search.swarm.snapshot, paths=["config.json"], refs=())
    async with search.coordinator() as url:
        found = await search.reference(search.pinned, url)
    assert found.metainfo is not None
    assert found.refs == ()


async def test_a_branch_is_requested_even_if_it_is_cached(search: Search) -> None:
    publish(search.cache, search.swarm.snapshot)
    async with FakeHub(search.swarm.snapshot) as hub:
        await search.reference(MAIN, mirror=hub.url)
        assert hub.requests != []


async def test_when_no_mirror_answers_the_cache_is_used_and_a_note_reports_it(search: Search) -> None:
    publish(search.cache, search.swarm.snapshot)
    found = await search.reference(MAIN)
    assert found == ResolvedTarget(search.swarm.snapshot.manifest, None, ("main",), vouched_by="cache")
    commit = search.swarm.snapshot.commit[:8]
    assert [n for n in search.heard.notes if n.endswith(f"using org/model@main as it is in this cache ({commit})")]


async def test_the_refusal_of_a_mirror_is_not_hidden_by_the_cache(search: Search) -> None:
    publish(search.cache, search.swarm.snapshot)
    async with FakeHub(search.swarm.snapshot, refs=()) as hub:
        with pytest.raises(RevisionNotFound):
            await search.reference(MAIN, mirror=hub.url)


async def test_without_any_answer_an_empty_cache_is_an_error(search: Search) -> None:
    with pytest.raises(Unavailable):
        await search.reference(MAIN)


async def test_offline_only_the_cache_counts(search: Search) -> None:
    with pytest.raises(Unavailable, match="org/model@main is not in this cache, and no mirror may be asked"):
        await search.reference(MAIN, mirror=None)
    publish(search.cache, search.swarm.snapshot)
    assert await search.reference(MAIN, mirror=None) == ResolvedTarget(
        search.swarm.snapshot.manifest, None, ("main",), vouched_by="cache"
    )
    assert search.heard.notes == []
    await search.reference(MAIN, CLOSED, mirror=None)
    assert search.heard.notes[0].endswith("using this cache alone")


# torrents


@pytest.mark.parametrize(
    "text", ["m.torrent", "/a/m.torrent", "http://h/x", "https://h/x", f"magnet:?xt=urn:btmh:1220{64 * '0'}"]
)
def test_torrents_are_distinguished_from_repositories(text: str) -> None:
    assert parse_target(text) == TorrentTarget(text)
    with pytest.raises(InvalidInput, match="--revision"):
        parse_target(text, "main")


def test_everything_else_is_a_reference() -> None:
    assert parse_target("hf://org/model@v1") == Reference.parse("org/model@v1")
    assert parse_target("org/model", "v1") == Reference.parse("org/model@v1")
    with pytest.raises(InvalidInput):
        parse_target("org/model/torrent")


async def test_a_file_and_a_url(search: Search, tmp_path: Path) -> None:
    raw = search.swarm.metainfo.raw
    path = tmp_path / "m.torrent"
    path.write_bytes(raw)

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=raw)

    async with answering(answer) as base:
        for source in (str(path), f"{base}/m.torrent"):
            found = await search.torrent(source)
            assert found.metainfo is not None
            assert (found.metainfo.raw, found.refs) == (raw, ())


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [(None, NotFound, "m.torrent"), (b"<html>", BadTorrent, "torrent"), (b"", BadTorrent, "torrent")],
)
async def test_a_file_that_is_no_torrent(
    search: Search, tmp_path: Path, content: bytes | None, error: type, message: str
) -> None:
    path = tmp_path / "m.torrent"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        await search.torrent(str(path))


async def _not_found(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


async def _private(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPUnauthorized


async def _gone_wrong(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPBadGateway


async def _page(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>Sign in</html>", content_type="text/html")


async def _plain_words(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="sorry")


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(1 << 16))


async def _to_itself(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.path)


async def _cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"d8:announce")
    assert request.transport is not None
    request.transport.abort()
    return response


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (_not_found, NotFound, "x.torrent does not exist"),
        (_gone_wrong, Unavailable, "x.torrent answered 502"),
        (_private, AccessDenied, "x.torrent answered 401"),
        (_page, BadTorrent, "web page"),
        (_plain_words, BadTorrent, "torrent"),
        (_endless, BadTorrent, "larger than a .torrent may be"),
        (_to_itself, Unavailable, "x.torrent cannot be downloaded: .+"),
        (_cut_off, Unavailable, "x.torrent cannot be downloaded: .+"),
    ],
)
async def test_a_url_that_gives_no_torrent(
    search: Search, answer: Answer, error: type, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torrent_download, "MAX_TORRENT_SIZE", 1 << 20)
    async with answering(answer) as base:
        with pytest.raises(error, match=message):
            await search.torrent(f"{base}/secret/x.torrent?token=secret")


async def test_a_server_that_hangs_is_given_up_with_a_reason() -> None:
    hanging = asyncio.Event()

    async def hang(_request: web.Request) -> web.StreamResponse:
        await hanging.wait()
        return web.Response()

    async with answering(hang) as base:
        with pytest.raises(Unavailable, match=r"x\.torrent cannot be downloaded: .+") as caught:
            await download_torrent(f"{base}/secret/x.torrent", 0.05)
        hanging.set()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999/x", "http://[::1/x", "http://127.0.0.1:1/x"])
async def test_a_url_that_leads_nowhere(url: str) -> None:
    with pytest.raises((InvalidInput, Unavailable)):
        await download_torrent(url)


# magnets


async def test_a_magnets_own_source_is_read_first(search: Search) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=search.swarm.metainfo.raw)

    async with answering(answer) as base:
        magnet = magnet_of(search.swarm.metainfo, sources=[f"{CLOSED}/m.torrent", f"{base}/m.torrent"])
        found = await search.torrent(magnet)
    assert found.manifest == search.swarm.metainfo.manifest
    assert len(search.heard.notes) == 1
    assert "connection refused" in search.heard.notes[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_address_from_a_magnet_or_a_redirect_does_not_lead_into_this_machine(
    search: Search, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    reached: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        reached.append(request.path)
        return web.Response(body=search.swarm.metainfo.raw)

    async with answering(answer) as base:
        url = f"{base.replace('127.0.0.1', host)}/m.torrent"
        with pytest.raises(Unavailable, match=r"it leads to (127\.0\.0\.1|::1), a loopback address"):
            await download_torrent(url, named=False)
        assert reached == []
        assert (await download_torrent(url)).manifest == search.swarm.metainfo.manifest


async def test_a_redirect_of_a_torrents_url_is_checked() -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async with answering(redirect) as base:
        for target in ("http://169.254.169.254/x", "http://10.0.0.1/x", "http://127.0.0.1:99999999/x", "ftp://a/x", ""):
            with pytest.raises(Unavailable, match=r"it leads to|it redirects to an unusable address"):
                await download_torrent(f"{base}/x.torrent?to={target}")


async def test_a_source_with_another_torrent_is_skipped_for_the_coordinator(search: Search) -> None:
    async def another(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=torrent_of(SMALL))

    async with answering(another) as base, search.coordinator() as url:
        magnet = magnet_of(search.swarm.metainfo, sources=[f"{base}/m.torrent"])
        found = await search.torrent(magnet, url)
    assert found.manifest == search.swarm.metainfo.manifest
    assert ["another torrent" in note for note in search.heard.notes] == [True]


async def test_a_bare_magnet_is_joined(search: Search) -> None:
    async with search.swarm.engine("127.0.0.2") as seeder, search.swarm.engine() as engine:
        await search.swarm.seed(seeder)
        found = await search.torrent(magnet_of(search.swarm.metainfo), engine=engine)
    assert search.heard.notes == []
    assert found.metainfo is not None
    assert found.metainfo.info_hash == search.swarm.metainfo.info_hash


async def test_a_magnet_without_peers(search: Search) -> None:
    async with search.swarm.engine() as engine:
        with pytest.raises(Unavailable, match=r"within 0\.3 seconds"):
            await search.torrent(magnet_of(search.swarm.metainfo), engine=engine)
