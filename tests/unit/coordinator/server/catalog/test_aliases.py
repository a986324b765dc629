"""The aliases of a coordinator: rights to move them, what they come before, rollback, and what outlives a restart."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.catalog_messages import MAX_MOVES, Alias, AliasMove, alias_of, alias_plain
from p2pmodel.coordinator.client.aliases import AliasClient
from p2pmodel.coordinator.client.catalog import find, list_torrents
from p2pmodel.coordinator.client.publishing import publish
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.aliases import Aliases, newest
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.credentials import ADMINISTRATOR, Caller, Rights
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import Reference, RepoId, VersionRange, is_range, is_version
from p2pmodel.core.notes import Note
from p2pmodel.errors import (
    AccessDenied,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
)
from p2pmodel.http.server import serving
from tests.support.coordinators import CLOSED, PUBLISHERS, client
from tests.support.torrent_files import SMALL, torrent_of

ONE, TWO, THREE = ("a" * 40, "b" * 40, "c" * 40)
STABLE = Reference.parse("org/tiny@stable")
ALICE, BOB = Caller(Rights.PUBLISHER, "alice"), Caller(Rights.PUBLISHER, "bob")
ROOT = Caller(Rights.ADMINISTRATOR, ADMINISTRATOR)


NAMES = [
    "main",
    "stable",
    "0.3.1",
    "v0.3.9",
    "0.4.0",
    "v1.2.3",
    "1.2.10",
    "v1.10.0",
    "1.11.0-rc.1",
    "v2.0.0",
    "1.99",
    "x1.9.9",
]


async def catalog_of(*commits: str) -> Catalog:
    catalog = Catalog()
    for commit in commits:
        await catalog.publish(read_publication(torrent_of(SMALL, commit=commit)), by=ALICE)
    return catalog


class Rig:
    """Aliases over a catalog of three commits, their log lines, and a clock."""

    def __init__(self, catalog: Catalog, folder: Path | None = None) -> None:
        self.catalog, self.lines, self.now = catalog, list[Note](), 1000.0
        self.aliases = Aliases(catalog, folder, note=lambda line: self.lines.append(Note.of(line)), clock=self.time)

    def time(self) -> float:
        self.now += 1
        return self.now

    def commit(self, ref: Reference = STABLE) -> str:
        return self.aliases.resolved(ref).revision


@pytest.fixture
async def rig() -> Rig:
    return Rig(await catalog_of(ONE, TWO, THREE))


async def test_an_alias_is_moved_with_a_line_in_the_log(rig: Rig) -> None:
    assert rig.commit() == "stable"
    await rig.aliases.set(STABLE, ONE, ALICE)
    await rig.aliases.set(STABLE, TWO, ALICE)
    again = await rig.aliases.set(STABLE, TWO, ALICE)
    assert [(move.commit, move.by, move.at) for move in again.moves] == [(ONE, "alice", 1001.0), (TWO, "alice", 1002.0)]
    assert rig.commit() == TWO
    assert list(map(str, rig.lines)) == [
        f"alias org/tiny@stable was moved to {ONE[:12]} by alice",
        f"alias org/tiny@stable was moved from {ONE[:12]} to {TWO[:12]} by alice",
    ]
    assert rig.lines[1].event == "alias_moved"
    keys = {"repo": "org/tiny", "alias": "stable", "before": ONE, "commit": TWO, "by": "alice"}
    assert rig.lines[1].keys == keys


async def test_rollback_goes_back_one_move_each_time(rig: Rig) -> None:
    for commit in (ONE, TWO, THREE):
        await rig.aliases.set(STABLE, commit, ALICE)
    assert (await rig.aliases.rollback(STABLE, ALICE)).commit == TWO
    assert (await rig.aliases.rollback(STABLE, ALICE)).commit == ONE
    assert rig.lines[-1].keys["before"] == TWO
    with pytest.raises(Conflict, match="never pointed at another commit"):
        await rig.aliases.rollback(STABLE, ALICE)
    assert rig.commit() == ONE


async def test_no_rollback_to_a_commit_that_was_withdrawn(rig: Rig) -> None:
    await rig.aliases.set(STABLE, ONE, ALICE)
    await rig.aliases.set(STABLE, TWO, ALICE)
    await rig.catalog.withdraw(read_publication(torrent_of(SMALL, commit=ONE)).info_hash, by=ALICE)
    with pytest.raises(Conflict, match="was withdrawn"):
        await rig.aliases.rollback(STABLE, ALICE)
    assert rig.commit() == TWO


async def test_only_the_owner_and_administrators_move_it(rig: Rig) -> None:
    await rig.aliases.set(STABLE, ONE, ALICE)
    for change in (
        rig.aliases.set(STABLE, TWO, BOB),
        rig.aliases.rollback(STABLE, BOB),
        rig.aliases.remove(STABLE, BOB),
    ):
        with pytest.raises(Forbidden, match="org/tiny@stable was set by alice"):
            await change
    assert rig.commit() == ONE
    assert (await rig.aliases.set(STABLE, TWO, ROOT)).owner == "alice"
    await rig.aliases.set(STABLE, THREE, ALICE)
    assert rig.commit() == THREE


async def test_the_revision_name_of_another_publisher_cannot_become_an_alias(rig: Rig) -> None:
    await rig.catalog.publish(read_publication(torrent_of(SMALL, commit=ONE)), ["stable"], by=ALICE)
    with pytest.raises(Forbidden, match="was set by alice"):
        await rig.aliases.set(STABLE, TWO, BOB)
    await rig.aliases.set(STABLE, TWO, ALICE)
    await rig.catalog.publish(read_publication(torrent_of(SMALL, commit=ONE)), ["stable"], by=ALICE)
    assert rig.commit() == TWO, "a seeder that publishes again does not move it"


async def test_an_alias_may_be_set_by_a_name_or_another_alias_in_any_spelling(rig: Rig) -> None:
    await rig.catalog.publish(read_publication(torrent_of(SMALL, commit=TWO)), ["v2"], by=ALICE)
    await rig.aliases.set(Reference.parse("ORG/Tiny@next"), "v2", ALICE)
    alias = await rig.aliases.set(STABLE, "next", ALICE)
    assert (alias.commit, alias.repo) == (TWO, RepoId("org/tiny"))
    await rig.aliases.set(Reference.parse("org/tiny@next"), THREE, ALICE)
    assert rig.commit() == TWO, "it points at the commit, not at the other alias"


@pytest.mark.parametrize(
    ("ref", "revision", "error"),
    [
        ("org/tiny@stable", "d" * 40, RevisionNotFound),
        ("org/tiny@stable", "v9", RevisionNotFound),
        ("org/other@stable", ONE, RepoNotFound),
        ("org/tiny@main", ONE, InvalidInput),
        ("org/tiny@refs/pr/1", ONE, InvalidInput),
        (f"org/tiny@{ONE}", TWO, InvalidInput),
        ("org/tiny@stable", "../x", InvalidInput),
    ],
)
async def test_what_cannot_be_an_alias(rig: Rig, ref: str, revision: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await rig.aliases.set(Reference.parse(ref), revision, ALICE)
    assert rig.aliases.all() == []


async def test_aliases_outlive_a_restart(tmp_path: Path) -> None:
    catalog = await catalog_of(ONE, TWO)
    rig = Rig(catalog, tmp_path)
    await rig.aliases.set(STABLE, ONE, ALICE)
    await rig.aliases.set(STABLE, TWO, ALICE)
    later = Rig(catalog, tmp_path)
    assert await later.aliases.load() == ()
    assert later.aliases.all() == rig.aliases.all()
    await later.aliases.remove(STABLE, ALICE)
    assert str(later.lines[-1]).startswith("alias org/tiny@stable was removed by alice")
    last = Rig(catalog, tmp_path)
    assert await last.aliases.load() == ()
    assert last.aliases.all() == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"aliases": [1]}', '{"aliases": [{"repo": "org/a", "moves": []}]}']
)
async def test_a_malformed_record_is_not_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "aliases.json").write_text(content)
    rig = Rig(await catalog_of(ONE), tmp_path)
    assert await rig.aliases.load() == ("aliases.json in the catalog folder is not used: it is malformed",)
    assert rig.aliases.all() == []


async def test_what_cannot_be_stored_is_not_moved(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    rig = Rig(await catalog_of(ONE), tmp_path / "file")
    with pytest.raises(Exception, match="file"):
        await rig.aliases.set(STABLE, ONE, ALICE)
    assert (rig.aliases.all(), rig.lines) == ([], [])


def test_only_the_latest_moves_are_kept() -> None:
    alias = Alias(RepoId("org/tiny"), "stable", "alice", (AliasMove(ONE, "alice", 0.0),))
    for number in range(2 * MAX_MOVES):
        alias = alias.moved(AliasMove(f"{number:040x}", "alice", float(number)))
    assert (len(alias.moves), alias.commit) == (MAX_MOVES, f"{2 * MAX_MOVES - 1:040x}")
    assert alias_of(alias_plain(alias)) == alias


async def test_a_range_means_the_highest_version_of_names_and_aliases(rig: Rig) -> None:
    wanted = VersionRange(RepoId("ORG/tiny"), "^1.2")
    with pytest.raises(RevisionNotFound, match=r"no version in this catalog matches ORG/tiny@\^1\.2"):
        rig.aliases.version(wanted)
    await rig.catalog.publish(read_publication(torrent_of(SMALL, commit=ONE)), ["v1.2.9", "v2.0.0"], by=ALICE)
    assert rig.aliases.version(wanted).revision == "v1.2.9"
    await rig.aliases.set(Reference.parse("org/tiny@1.10.0"), TWO, ALICE)
    assert rig.commit(rig.aliases.version(wanted)) == TWO
    await rig.aliases.remove(Reference.parse("org/tiny@1.10.0"), ALICE)
    await rig.catalog.publish(read_publication(torrent_of(SMALL, commit=TWO)), ["v1.9.0"], by=ALICE)
    await rig.catalog.publish(read_publication(torrent_of(SMALL, "hybrid", commit=TWO)), by=BOB)
    for form in ("v2", "hybrid"):
        by = ALICE if form == "v2" else BOB
        assert rig.aliases.version(wanted).revision == "v1.9.0"
        await rig.catalog.withdraw(read_publication(torrent_of(SMALL, form, commit=TWO)).info_hash, by=by)
    assert rig.aliases.version(wanted).revision == "v1.2.9", "a name without a torrent does not count"


# over HTTP


async def test_an_alias_over_http() -> None:
    catalog = await catalog_of(ONE, TWO)
    async with serving(coordinator_app(Tracker(), catalog, credentials=PUBLISHERS), "127.0.0.1", 0, grace=0.1) as url:
        writer, reader = AliasClient(client(url)), AliasClient(client(url, publish=""))
        for refused in (reader.set(STABLE, ONE), reader.rollback(STABLE), reader.remove(STABLE)):
            with pytest.raises(AccessDenied):
                await refused
        assert (await find(STABLE, [client(url)], 5)).metainfo is None
        await writer.set(STABLE, ONE)
        moved = await writer.set(STABLE, TWO)
        assert moved.owner == "seeder"
        assert await reader.all() == await reader.all(RepoId("ORG/tiny")) == [moved]
        assert await reader.all(RepoId("org/other")) == []
        listed = await list_torrents(client(url), 5)
        assert {each["commit"]: each["aliases"] for each in listed} == {ONE: [], TWO: ["stable"]}
        found = await find(STABLE, [client(url)], 5)
        assert found.metainfo is not None
        assert (found.metainfo.manifest.commit, found.name) == (TWO, "stable")
        pinned = await find(Reference.parse(f"org/tiny@{TWO}"), [client(url)], 5)
        assert pinned.name == ""
        assert (await writer.rollback(STABLE)).commit == ONE
        assert (await writer.remove(STABLE)).commit == ONE
        with pytest.raises(NotFound, match="is not an alias here"):
            await writer.rollback(STABLE)
        await publish(client(url), torrent_of(SMALL, commit=TWO), ["v1"])
        assert (await find(Reference.parse("org/tiny@v1"), [client(url)], 5)).name == ""
    with pytest.raises(Unavailable):
        await AliasClient(client(CLOSED)).all()


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("^1.2", "v1.10.0"),
        ("^v1", "v1.10.0"),
        ("~1.2", "1.2.10"),
        ("~1.2.11", None),
        ("^0.3", "v0.3.9"),
        ("^1.11.0-rc.0", "1.11.0-rc.1"),
        ("^1.10.1", None),
        ("^3", None),
    ],
)
def test_the_highest_version_in_the_range(wanted: str, name: str | None) -> None:
    assert newest(wanted, NAMES) == name
    assert newest(wanted, reversed(NAMES)) == name


@given(
    st.from_regex(r"[\^~]v?[0-9a-z.-]{1,20}", fullmatch=True),
    st.lists(st.text("v0123456789.-ab", max_size=12), max_size=5),
)
def test_whatever_the_texts_are_the_answer_is_one_of_the_names(wanted: str, names: list[str]) -> None:
    if is_range(wanted):
        found = newest(wanted, names)
        assert found is None or (found in names and is_version(found))
