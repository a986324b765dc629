"""The catalog: what may be published, what is found, what survives a restart, and its HTTP face."""

import asyncio
import hashlib
import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession
from yarl import URL

from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog import catalog as catalog_module
from p2pmodel.coordinator.server.catalog.catalog import ASSEMBLY, Catalog
from p2pmodel.coordinator.server.catalog.catalog_folder import CatalogFolder
from p2pmodel.coordinator.server.catalog.publication import MAX_TORRENT, Publication, read_publication
from p2pmodel.coordinator.server.credentials import Caller, Rights
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import (
    BadTorrent,
    Conflict,
    Forbidden,
    InvalidInput,
    LocalResource,
    NoSpace,
    NotFound,
    P2PModelError,
    RepoNotFound,
    RevisionNotFound,
)
from p2pmodel.http.server import serving
from p2pmodel.swarm import bencode
from p2pmodel.swarm.torrents import Format, parse
from tests.support.coordinators import ADMIN_TOKEN, PUBLISH_TOKEN, TOKEN, tokens
from tests.support.torrent_files import COMMIT, SMALL, torrent_of

OTHER = "a" * 40
MAIN = Reference.parse("org/tiny")
OTHER_PUBLISHER = Caller(Rights.PUBLISHER, "other")


def publication(form: Format = "v2", **options: object) -> Publication:
    return read_publication(torrent_of(SMALL, form, **options))


def refused(error: type[P2PModelError], call: object) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("form", ["v2", "hybrid", "v1"])
def test_every_format_is_read(form: Format) -> None:
    raw = torrent_of(SMALL, form, trackers=("http://t.example/announce",))
    found = read_publication(raw)
    assert (found.raw, str(found.repo), found.commit, found.format) == (raw, "org/tiny", COMMIT, form)
    assert (found.files, found.size) == (len(SMALL), sum(map(len, SMALL.values())))
    assert [len(h) for h in found.info_hashes] == {"v2": [64], "hybrid": [64, 40], "v1": [40]}[form]
    assert [len(h) for h in found.announced] == [20] * len(found.info_hashes)


def test_a_v1_hash_is_that_of_the_info_dictionary() -> None:
    raw = torrent_of(SMALL, "v1")
    _, spans = bencode.decode_dict(raw)
    assert publication("v1").info_hash == hashlib.sha1(raw[spans[b"info"]]).hexdigest()


def changed_v1(**changes: object) -> bytes:
    top = bencode.decode(torrent_of(SMALL, "v1"))
    assert isinstance(top, dict)
    info = top[b"info"]
    assert isinstance(info, dict)
    for name, value in changes.items():
        info[name.replace("_", " ").encode()] = value
    return bencode.encode(top)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": b"x"}, "this v1 .torrent contradicts its own manifest"),
        ({"pieces": b"x" * 20}, "this v1 .torrent contradicts its own manifest"),
        ({"files": []}, "this v1 .torrent contradicts its own manifest"),
        ({"piece_length": 3}, "cannot be used: its piece length is not a power of two between 16 KiB and 128 MiB"),
        ({"p2pmodel": 7}, "the manifest in this v1 .torrent cannot be used: the manifest is malformed"),
        ({"p2pmodel": {b"repo": b"\xff"}}, "the manifest in this v1 .torrent cannot be used: it is malformed"),
        ({"p2pmodel": {b"repo": b"a/b"}}, "the manifest in this v1 .torrent cannot be used: the manifest is malformed"),
        ({"extra": 1}, "v1 only"),
    ],
)
def test_a_v1_torrent_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadTorrent) as caught:
        read_publication(changed_v1(**changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"<html>", b"de", b"x" * (MAX_TORRENT + 1)])
def test_invalid_torrents_are_refused(data: bytes) -> None:
    with pytest.raises(BadTorrent):
        read_publication(data)


async def test_a_torrent_is_found_by_name_commit_and_hash() -> None:
    catalog, found = Catalog(), publication()
    await catalog.publish(found, ["main", "refs/pr/1", COMMIT])
    assert catalog.find(MAIN) is found
    assert catalog.find(Reference.parse(f"org/tiny@{COMMIT}")) is found
    assert catalog.find(Reference.parse("org/tiny@refs/pr/1")) is found
    assert catalog.by_info_hash(found.info_hash) is found
    assert catalog.revisions(found) == ["main", "refs/pr/1"]


async def test_a_torrent_is_found_by_every_spelling_of_its_repository() -> None:
    catalog, tiny = Catalog(), publication()
    await catalog.publish(tiny, ["main"])
    for name in ("ORG/Tiny@main", f"Org/tiny@{COMMIT}"):
        assert catalog.find(Reference.parse(name)) is tiny
    with pytest.raises(RevisionNotFound):
        catalog.find(Reference.parse("ORG/Tiny@other"))


async def test_each_format_is_found_under_its_name() -> None:
    catalog = Catalog()
    published = {form: publication(form) for form in ("v2", "hybrid", "v1")}
    for each in published.values():
        await catalog.publish(each)
    ref = Reference.parse(f"org/tiny@{COMMIT}")
    assert {form: catalog.find(ref, form) for form in published} == published
    assert catalog.by_info_hash(published["hybrid"].info_hashes[1]) is published["hybrid"]
    for each in published.values():
        assert all(map(catalog.admits, each.announced))
    assert not catalog.admits(b"x" * 20)


async def test_missing_repositories_revisions_and_formats_have_different_errors() -> None:
    catalog = Catalog()
    hint = "; seed it, or fetch it from the mirrors"
    assert refused(RepoNotFound, lambda: catalog.find(MAIN)) == f"org/tiny is not in this catalog{hint}"
    await catalog.publish(publication())
    assert refused(RevisionNotFound, lambda: catalog.find(MAIN)) == f"org/tiny@main is not in this catalog{hint}"
    await catalog.publish(publication(), ["main"])
    text = refused(NotFound, lambda: catalog.find(MAIN, "hybrid"))
    assert text == "org/tiny@main is not published as hybrid; ask for format=v2"
    text = refused(NotFound, lambda: catalog.by_info_hash("0" * 64))
    assert text == "no torrent with this info-hash is in this catalog"


async def test_a_name_moves_and_other_commits_stay() -> None:
    catalog, old, new = Catalog(), publication(), publication(commit=OTHER)
    await catalog.publish(old, ["main", "v1"])
    await catalog.publish(new, ["main"])
    assert catalog.find(MAIN) is new
    assert catalog.find(Reference.parse("org/tiny@v1")) is old


async def test_publishing_again_replaces_the_fields_outside_the_info() -> None:
    catalog = Catalog()
    await catalog.publish(publication(), ["main"])
    again = publication(trackers=("http://t.example/announce",))
    await catalog.publish(again, ["v2"])
    assert catalog.find(MAIN).raw == again.raw
    assert catalog.revisions(again) == ["main", "v2"]


async def test_another_torrent_of_the_same_commit_is_refused_until_the_first_is_withdrawn() -> None:
    catalog, first, second = Catalog(), publication(), publication(piece_length=16384)
    await catalog.publish(first, ["main"])
    with pytest.raises(Conflict, match=first.info_hash):
        await catalog.publish(second, ["v1"])
    assert catalog.revisions(first) == ["main"]
    await catalog.withdraw(first.info_hash)
    await catalog.publish(second, ["main"])
    assert catalog.find(MAIN) is second
    assert not catalog.admits(first.announced[0])


async def test_other_publishers_torrents_of_a_commit_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_CANDIDATES", 2)
    catalog, first, second = Catalog(), publication(), publication(piece_length=16384)
    await catalog.publish(first, ["main"])
    await catalog.publish(second, by=OTHER_PUBLISHER)
    assert catalog.find(MAIN) is first
    assert catalog.find(MAIN, without={first.info_hash}) is second
    with pytest.raises(NotFound, match="no other torrent"):
        catalog.find(MAIN, without={first.info_hash, second.info_hash})
    catalog.report(first.info_hash, "10.0.0.1")
    assert catalog.find(MAIN) is second
    catalog.report(second.info_hash, "10.0.0.1")
    catalog.report(second.info_hash, "10.0.0.2")
    assert catalog.find(MAIN) is first


async def test_a_reported_torrent_gives_its_place_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_CANDIDATES", 2)
    catalog, third = Catalog(), publication(piece_length=1 << 16)
    first, second = publication(), publication(piece_length=16384)
    await catalog.publish(first, ["main"])
    await catalog.publish(second, by=OTHER_PUBLISHER)
    stranger = Caller(Rights.PUBLISHER, "third")
    with pytest.raises(Conflict):
        await catalog.publish(third, by=stranger)
    catalog.report(first.info_hash, "10.0.0.1")
    await catalog.publish(third, by=stranger)
    assert [p.info_hash for p in catalog.publications()] == [second.info_hash, third.info_hash]
    catalog.report(third.info_hash, "10.0.0.1")
    with pytest.raises(NotFound):
        catalog.report(first.info_hash, "10.0.0.1")


async def test_withdrawing_keeps_names_as_long_as_the_commit_has_a_torrent() -> None:
    catalog, v2, v1 = Catalog(), publication(), publication("v1")
    await catalog.publish(v2, ["main"])
    await catalog.publish(v1)
    await catalog.withdraw(v2.info_hash)
    assert catalog.find(MAIN, "v1") is v1
    await catalog.withdraw(v1.info_hash)
    await catalog.publish(v2)
    assert catalog.revisions(v2) == []
    with pytest.raises(NotFound):
        await catalog.withdraw(v1.info_hash)


@pytest.mark.parametrize("name", ["", "..", "a b", OTHER])
async def test_bad_revision_names_are_refused_and_change_no_entry(name: str) -> None:
    catalog = Catalog()
    with pytest.raises(InvalidInput):
        await catalog.publish(publication(), ["main", name])
    assert catalog.publications() == []


async def test_the_catalog_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = publication(), publication(commit=OTHER)
    catalog = Catalog(max_bytes=len(one.raw) + len(two.raw) - 1)
    await catalog.publish(one)
    await catalog.publish(one)
    with pytest.raises(NoSpace, match=r"^the catalog is full; withdraw torrents that are not needed$"):
        await catalog.publish(two)
    monkeypatch.setattr(catalog_module, "MAX_REVISIONS", 2)
    with pytest.raises(NoSpace, match=r"^org/tiny has more than 2 revision names here$"):
        await catalog.publish(one, ["a", "b", "c"])
    monkeypatch.setattr(catalog_module, "MAX_TORRENTS", 1)
    with pytest.raises(NoSpace):
        await Catalog(max_bytes=1).publish(two)


async def test_a_folder_outlives_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    catalog, v2, hybrid = Catalog(CatalogFolder(folder)), publication(), publication("hybrid", commit=OTHER)
    assert await catalog.load() == ()
    await catalog.publish(v2, ["main"])
    await catalog.publish(hybrid, ["dev"])
    await catalog.publish(publication("v1"))
    await catalog.withdraw(publication("v1").info_hash)

    again = Catalog(CatalogFolder(folder))
    assert await again.load() == ()
    assert again.publications() == catalog.publications()
    assert again.find(MAIN) == v2
    assert again.find(Reference.parse("org/tiny@dev"), "hybrid") == hybrid
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [f"{v2.info_hash}.torrent", f"{hybrid.info_hash}.torrent", "catalog.json"]
    )


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        "{",
        "{}",
        '{"torrents": {}, "names": {"org/tiny": {"main": ["x", "a"]}}}',
        '{"torrents": {}, "names": {"org/tiny": {"main": "x"}}}',
        '{"torrents": {}, "names": {"a b": {}}}',
        '{"torrents": [1], "names": {}}',
    ],
)
async def test_damaged_files_in_a_folder_are_reported_and_left_alone(tmp_path: Path, record: str) -> None:
    catalog = Catalog(CatalogFolder(tmp_path))
    await catalog.publish(publication(), ["main"])
    (tmp_path / "0.torrent").write_bytes(b"cut o")
    (tmp_path / "catalog.json").write_text(record)
    again = Catalog(CatalogFolder(tmp_path))
    first, second = await again.load()
    assert first.startswith("0.torrent in the catalog folder is not used: ")
    assert second == "catalog.json in the catalog folder is not used: it is malformed"
    assert again.find(Reference.parse(f"org/tiny@{COMMIT}")) == publication()
    assert (tmp_path / "0.torrent").exists()


async def test_a_refused_publication_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").mkdir()
    with pytest.raises(LocalResource):
        await Catalog(CatalogFolder(tmp_path)).publish(publication(), ["main"])
    assert os.listdir(tmp_path) == ["catalog.json"]  # noqa: PTH208


async def test_a_publication_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    catalog = Catalog(CatalogFolder(tmp_path / "file"))
    with pytest.raises(LocalResource):
        await catalog.load()
    with pytest.raises(LocalResource):
        await catalog.publish(publication(), ["main"])
    assert catalog.publications() == []


@asynccontextmanager
async def http(
    member: str | None = None, *, token: str = PUBLISH_TOKEN
) -> AsyncIterator[tuple[ClientSession, str, Catalog]]:
    """A coordinator, and a session that sends `token`."""
    catalog = Catalog()
    app = coordinator_app(Tracker(admits=catalog.admits), catalog, credentials=tokens(member))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with serving(app, "127.0.0.1", 0) as base, ClientSession(headers=headers) as session:
        yield session, base, catalog


async def ask(session: ClientSession, method: str, url: str, **options: object) -> tuple[int, dict[str, object]]:
    async with session.request(method, url, **options) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_a_torrent_is_served_as_it_was_published() -> None:
    raw = torrent_of(SMALL, trackers=("http://t.example/announce",))
    async with http() as (session, base, _):
        status, answer = await ask(session, "PUT", f"{base}/catalog?revision=main&revision=v1", data=raw)
        assert status == 201
        info_hash = parse(raw).info_hash
        expected = {"repo": "org/tiny", "commit": COMMIT, "revisions": ["main", "v1"], "format": "v2", "private": False}
        expected |= {
            "info_hash": info_hash,
            "seeders": 0,
            "leechers": 0,
            "files": len(SMALL),
            "origin_bytes": 0,
            "cut_off": [],
            "unreachable": [],
            "signed_by": [],
            "aliases": [],
        }
        expected |= {"size": sum(map(len, SMALL.values()))}
        assert answer == expected
        for path in ("/catalog?repo=org/tiny", f"/catalog/torrents/{info_hash.upper()}.torrent"):
            async with session.get(base + path) as response:
                assert (response.status, response.content_type) == (200, "application/x-bittorrent")
                assert response.headers["X-Repo-Commit"] == COMMIT
                assert await response.read() == raw
        assert await ask(session, "GET", f"{base}/catalog") == (200, {"torrents": [expected]})


async def test_the_list_contains_the_counts_of_the_swarm() -> None:
    async with http() as (session, base, catalog):
        published = publication("hybrid")
        await catalog.publish(published)
        for number, left, info_hash in ((1, 0, published.announced[0]), (2, 5, published.announced[1])):
            escaped = "".join(f"%{b:02x}" for b in info_hash)
            url = f"{base}/announce?info_hash={escaped}&peer_id={str(number) * 20}&port={number}&left={left}"
            async with session.get(URL(url, encoded=True)) as response:
                assert b"interval" in await response.read()
        _, answer = await ask(session, "GET", f"{base}/catalog")
        assert [(t["seeders"], t["leechers"]) for t in answer["torrents"]] == [(1, 1)]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/catalog?repo=org/none", 404, "repo_not_found"),
        ("GET", "/catalog?repo=org/tiny&revision=none", 404, "revision_not_found"),
        ("GET", "/catalog?repo=org/tiny&format=v1", 404, "not_found"),
        ("GET", f"/catalog/torrents/{'0' * 64}.torrent", 404, "not_found"),
        ("GET", "/catalog?repo=../etc", 400, "invalid_input"),
        ("GET", "/catalog?repo=org/tiny&revision=..", 400, "invalid_input"),
        ("GET", "/catalog?repo=org/tiny&format=v3", 400, "invalid_input"),
        ("PUT", "/catalog?revision=..", 400, "bad_torrent"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/catalog", 405, "method_not_allowed"),
        ("GET", "/any-token/catalog", 404, "not_found"),
        ("DELETE", f"/catalog/torrents/{'0' * 64}.torrent", 404, "not_found"),
    ],
)
async def test_refusals_have_one_shape(method: str, path: str, status: int, code: str) -> None:
    async with http() as (session, base, catalog):
        await catalog.publish(publication(), ["main"])
        got, body = await ask(session, method, base + path)
        assert (got, body["code"], sorted(body)) == (status, code, ["code", "hint", "message"])


async def test_conflicts_and_withdrawals_over_http() -> None:
    async with http() as (session, base, _):
        await ask(session, "PUT", f"{base}/catalog", data=torrent_of(SMALL))
        status, body = await ask(session, "PUT", f"{base}/catalog", data=torrent_of(SMALL, piece_length=16384))
        assert (status, body["code"]) == (409, "conflict")
        async with session.delete(f"{base}/catalog/torrents/{publication().info_hash}.torrent") as response:
            assert response.status == 204
        assert (await ask(session, "GET", f"{base}/catalog"))[1] == {"torrents": []}


async def test_a_body_too_large_is_refused() -> None:
    async with http() as (session, base, _):
        status, body = await ask(session, "PUT", f"{base}/catalog", data=io.BytesIO(b"x" * (MAX_TORRENT + 1)))
        assert (status, body["code"]) == (413, "request_entity_too_large")


WITHDRAWAL = f"/catalog/torrents/{'0' * 64}.torrent"


@pytest.mark.parametrize(("method", "path"), [("GET", "/catalog"), ("PUT", "/catalog"), ("DELETE", WITHDRAWAL)])
async def test_every_catalog_route_requires_a_token(method: str, path: str) -> None:
    async with http(TOKEN, token="") as (session, base, _):
        wrong = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {PUBLISH_TOKEN}"}]
        for headers in wrong:
            status, body = await ask(session, method, base + path, headers=headers)
            assert (status, body["code"]) == (401, "access_denied")
            assert TOKEN not in json.dumps(body)
        async with session.request(method, base + path, headers=bearer(PUBLISH_TOKEN)) as response:
            assert response.status not in (401, 403)


@pytest.mark.parametrize("member", [None, TOKEN])
@pytest.mark.parametrize(("method", "path"), [("PUT", "/catalog"), ("DELETE", WITHDRAWAL)])
async def test_only_publishers_publish_and_withdraw(member: str | None, method: str, path: str) -> None:
    async with http(member, token=member or "") as (session, base, catalog):
        await catalog.publish(publication())
        status, body = await ask(session, method, base + path, data=torrent_of(SMALL))
        assert (status, body["code"]) == ((403, "forbidden") if member else (401, "access_denied"))
        assert catalog.find(Reference.parse(f"org/tiny@{COMMIT}"))


async def test_a_publisher_changes_nothing_of_another_and_an_administrator_does() -> None:
    async with http() as (session, base, catalog):
        theirs = publication(trackers=("http://t.example/announce",))
        await catalog.publish(theirs, ["main"], by=OTHER_PUBLISHER)
        moved = torrent_of(SMALL, commit=OTHER)
        assert (await ask(session, "PUT", f"{base}/catalog?revision=main", data=moved))[0] == 403
        assert (await ask(session, "PUT", f"{base}/catalog?revision=main", data=torrent_of(SMALL)))[0] == 201
        withdrawal = f"{base}/catalog/torrents/{theirs.info_hash}.torrent"
        assert (await ask(session, "DELETE", withdrawal))[0] == 403
        assert catalog.find(MAIN) is theirs  # with its own trackers
        admin = bearer(ADMIN_TOKEN)
        assert (await ask(session, "PUT", f"{base}/catalog?revision=main", data=moved, headers=admin))[0] == 201
        assert catalog.find(MAIN).commit == OTHER
        async with session.delete(withdrawal, headers=admin) as response:
            assert response.status == 204


async def test_owners_outlive_a_restart(tmp_path: Path) -> None:
    catalog = Catalog(CatalogFolder(tmp_path))
    await catalog.publish(publication(), ["main"], by=OTHER_PUBLISHER)
    again = Catalog(CatalogFolder(tmp_path))
    await again.load()
    with pytest.raises(Forbidden, match="was published by other"):
        await again.withdraw(publication().info_hash)
    with pytest.raises(Forbidden, match=rf"org/tiny@main was set to {COMMIT} by other"):
        await again.publish(publication(commit=OTHER), ["main"])
    await again.publish(publication(commit=OTHER), ["main"], by=OTHER_PUBLISHER)
    await again.withdraw(publication().info_hash, by=OTHER_PUBLISHER)


async def test_a_name_stays_with_its_owner_when_another_withdraws_the_torrent() -> None:
    catalog = Catalog()
    await catalog.publish(publication(), by=OTHER_PUBLISHER)
    await catalog.publish(publication(), ["main"])
    await catalog.withdraw(publication().info_hash, by=OTHER_PUBLISHER)
    with pytest.raises(Forbidden):
        await catalog.publish(publication(commit=OTHER), ["main"], by=OTHER_PUBLISHER)


async def test_what_members_assembled_is_replaced_by_any_publisher(tmp_path: Path) -> None:
    catalog, wrong, right = Catalog(CatalogFolder(tmp_path)), publication(piece_length=16384), publication()
    await catalog.publish(wrong, ["main"], by=ASSEMBLY)
    assert catalog.is_assembled(wrong.info_hash)
    await catalog.publish(right, ["main"], by=OTHER_PUBLISHER)
    assert (catalog.find(MAIN), catalog.is_assembled(right.info_hash)) == (right, False)
    with pytest.raises(Conflict):
        await catalog.publish(wrong, by=ASSEMBLY)
    again = Catalog(CatalogFolder(tmp_path))
    await again.load()
    assert again.publications() == [right]


async def test_one_publisher_publishes_a_bounded_number_of_torrents() -> None:
    catalog = Catalog(max_owner=1)
    await catalog.publish(publication(), by=OTHER_PUBLISHER)
    with pytest.raises(NoSpace, match="1 torrents of other"):
        await catalog.publish(publication(commit=OTHER), by=OTHER_PUBLISHER)
    await catalog.publish(publication(), ["main"], by=OTHER_PUBLISHER)
    await catalog.publish(publication(commit=OTHER))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_concurrent_publications_are_stored_one_after_the_other(tmp_path: Path) -> None:
    catalog = Catalog(CatalogFolder(tmp_path))
    commits = [f"{number:040x}" for number in range(8)]
    await asyncio.gather(*(catalog.publish(publication(commit=c), [f"r{n}"]) for n, c in enumerate(commits)))
    again = Catalog(CatalogFolder(tmp_path))
    await again.load()
    assert [again.find(Reference.parse(f"org/tiny@r{n}")).commit for n in range(8)] == commits
