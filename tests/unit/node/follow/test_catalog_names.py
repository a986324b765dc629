"""The patterns of follow lists against real catalogs."""

import pytest

from p2pmodel.config.sections.follow import FollowSettings
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import InvalidInput, NotFound, Unavailable
from p2pmodel.http.server import serving
from p2pmodel.node.follow.catalog_names import MOST, CatalogNames, catalog_names, matching

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
    async with serving(coordinator_app(Tracker(), Catalog()), "127.0.0.1", 0, grace=0.2) as url:
        assert await catalog_names([dead, Coordinator(url)], 5.0) == []
    with pytest.raises(Unavailable):
        await catalog_names([dead], 5.0)
