"""When a follow list is looked up, and which transfers it leaves. The time is passed in."""

from datetime import UTC, datetime

import pytest

from p2pmodel.config.sections.daemon import FollowSettings
from p2pmodel.coordinator.client.aliases import AliasClient
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import publish
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import InvalidInput, NotFound, Unavailable
from p2pmodel.node.follow.followed_list import (
    FIRST_PAUSE,
    JITTER,
    LONGEST_PAUSE,
    MOST_REFERENCES,
    SPREAD,
    CatalogNames,
    FollowedList,
    catalog_names,
    matching,
)
from p2pmodel.store.state.revisions import FollowedCommit
from tests.support.coordinators import RAW, client, coordinator

LISTED = [
    CatalogNames(RepoId("Qwen/Small"), frozenset({"main", "release-1", "release-2"})),
    CatalogNames(RepoId("Qwen/Large"), frozenset({"main"})),
    CatalogNames(RepoId("org/other"), frozenset({"release-9"})),
]


def found(repo: str, revision: str = "main") -> list[str]:
    return [str(ref) for ref in matching(FollowSettings(repo=repo, revision=revision), LISTED)]


def test_patterns_match_repositories_and_names() -> None:
    assert found("qwen/*") == ["Qwen/Large@main", "Qwen/Small@main"]
    assert found("*", "release-*") == ["Qwen/Small@release-1", "Qwen/Small@release-2", "org/other@release-9"]
    assert found("Qwen/*", "^1.2") == ["Qwen/Large@^1.2", "Qwen/Small@^1.2"]


def test_what_matches_nothing_is_an_error() -> None:
    with pytest.raises(NotFound, match=r"no name in the catalogs matches qwen/\*@v9"):
        found("qwen/*", "v9")


def test_one_list_has_a_bound() -> None:
    many = [CatalogNames(RepoId(f"org/m{number:03}"), frozenset({"main"})) for number in range(2 * MOST_REFERENCES)]
    assert len(matching(FollowSettings(repo="org/*"), many)) == MOST_REFERENCES


async def test_without_a_coordinator_there_is_nothing_to_match() -> None:
    with pytest.raises(InvalidInput, match="a pattern needs the catalog"):
        await catalog_names([], 1.0)


async def test_one_coordinator_that_answers_is_enough() -> None:
    dead = Coordinator("http://127.0.0.1:9")
    async with coordinator() as (url, _):
        await publish(client(url), RAW, ["main", "release-1"])
        await AliasClient(client(url)).set(Reference.parse("org/tiny@stable"), "main")
        listed = await catalog_names([dead, client(url)], 5.0)
    assert listed == [CatalogNames(RepoId("org/tiny"), frozenset({"main", "release-1", "stable"}))]
    with pytest.raises(Unavailable):
        await catalog_names([dead], 5.0)


MIDNIGHT = datetime(2026, 5, 1, tzinfo=UTC).timestamp()
HOUR = 3600.0
INTERVAL = 900.0


def night(**settings: object) -> FollowedList:
    values = {"repo": "org/m", "window": "22:00-06:00", "zone": "UTC", "interval": INTERVAL} | settings
    return FollowedList(FollowSettings.model_validate(values))


def commit(letter: str, revision: str = "main") -> FollowedCommit:
    return FollowedCommit(RepoId("org/m"), revision, letter * 40)


def test_it_is_looked_up_at_once_when_a_node_starts_in_the_window_and_not_outside() -> None:
    inside, outside = night(), night()
    assert inside.observe(MIDNIGHT, 0.9)
    assert inside.is_due(MIDNIGHT)
    assert not outside.observe(MIDNIGHT + 7 * HOUR, 0.9)
    assert not outside.is_due(MIDNIGHT + 7 * HOUR)


def test_when_a_window_opens_nodes_look_one_after_another() -> None:
    followed = night()
    followed.observe(MIDNIGHT - 3 * HOUR, 0.5)
    opens = MIDNIGHT - 2 * HOUR
    assert followed.observe(opens, 0.5)
    assert not followed.is_due(opens)
    assert followed.next_look == opens + SPREAD / 2
    assert followed.is_due(opens + SPREAD / 2)
    short = night(window="22:00-22:05")
    short.observe(opens - 60, 1.0)
    short.observe(opens, 1.0)
    assert short.next_look == opens + 30


def test_after_a_success_it_waits_its_interval_and_after_failures_longer_and_longer() -> None:
    followed = night()
    followed.observe(MIDNIGHT, 0.0)
    followed.succeeded(MIDNIGHT, [commit("a")], 0.5)
    assert followed.next_look == MIDNIGHT + INTERVAL
    followed.succeeded(MIDNIGHT, [commit("a")], 0.0)
    assert followed.next_look == MIDNIGHT + INTERVAL * (1 - JITTER)
    pauses = []
    for _ in range(10):
        followed.failed(MIDNIGHT, [], "no answer")
        pauses.append(followed.next_look - MIDNIGHT)
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert max(pauses) == LONGEST_PAUSE
    assert (followed.error, followed.commits, followed.checked) == ("no answer", (commit("a"),), MIDNIGHT)
    followed.succeeded(MIDNIGHT, [commit("a")], 0.5)
    assert (followed.error, followed.next_look) == ("", MIDNIGHT + INTERVAL)


def test_a_clock_that_is_set_back_delays_no_look() -> None:
    followed = night(window=None, zone=None)
    followed.observe(MIDNIGHT, 0.5)
    followed.succeeded(MIDNIGHT, [], 0.5)
    assert not followed.is_due(MIDNIGHT + INTERVAL / 2)
    assert followed.is_due(MIDNIGHT - 24 * HOUR)


def test_a_moved_branch_leaves_the_transfer_of_the_old_commit() -> None:
    followed = night()
    assert followed.succeeded(MIDNIGHT, [commit("a"), commit("b", "stable")], 0.5) == frozenset()
    assert followed.succeeded(MIDNIGHT, [commit("c"), commit("b", "stable")], 0.5) == {commit("a").transfer}
    assert followed.failed(MIDNIGHT, [commit("d")], "stable: no answer") == {commit("c").transfer}
    assert set(followed.commits) == {commit("d"), commit("b", "stable")}
