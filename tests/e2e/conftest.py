"""End-to-end tests are slow, except those of the main job; their folders have short names."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
LONGEST_NAME = 12
"""Below it lies the path of a daemon's socket, which the kernel limits to 107 bytes."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER) and not item.get_closest_marker("main"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pytest's own, with a shorter name."""
    name = re.sub(r"\W", "_", request.node.name).removeprefix("test_")
    return tmp_path_factory.mktemp(name[:LONGEST_NAME])
