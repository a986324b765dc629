"""Which repositories a mirror is asked for."""

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.core.content.routes import RepoRoute


@pytest.mark.parametrize(
    ("patterns", "taken", "left"),
    [
        ((), "org/name gpt2 datasets/org/data", ""),
        (("our-org/*", "Qwen/*"), "our-org/a QWEN/b", "org/name gpt2 datasets/our-org/a"),
        (("!our-org/*",), "Qwen/b gpt2", "our-org/a Our-Org/b"),
        (("our-*", "!our-secret/*"), "our-org/a", "our-secret/a org/name"),
        (("datasets/*",), "datasets/org/data", "org/name"),
    ],
)
def test_patterns_choose_repositories(patterns: tuple[str, ...], taken: str, left: str) -> None:
    route = RepoRoute(patterns)
    assert [name for name in taken.split() if not route.takes(RepoId(name))] == []
    assert [name for name in left.split() if route.takes(RepoId(name))] == []
