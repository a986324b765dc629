"""The patterns of follow lists against real catalogs."""

import pytest

from p2pmodel.config.sections.follow import FollowSettings
from p2pmodel.coordinator.client.aliases import AliasClient
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import publish
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import InvalidInput, NotFound, Unavailable
from p2pmodel.node.follow.catalog_names import MOST, CatalogNames, catalog_names, matching
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
    many = [CatalogNames(RepoId(f"org/m{number:03}"), frozenset({"main"})) for number in range(2 * MOST)]
    assert len(matching(FollowSettings(repo="org/*"), many)) == MOST


async def test_without_a_coordinator_there_is_nothing_to_match() -> None:
    with pytest.raises(InvalidInput, match="matched against a catalog"):
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
