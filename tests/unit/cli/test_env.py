"""The variables that `p2pmodel env` prints."""

from pathlib import Path

import pytest

from p2pmodel.cli.env import variables_of
from p2pmodel.core.progress.views import NodeView
from p2pmodel.errors import Unavailable

URL = "http://127.0.0.1:8092"


def node(cache: Path, hub: str | None = URL) -> NodeView:
    return NodeView("1", str(cache), "127.0.0.1:1", 2, hub)


def test_the_cache_is_named_if_it_is_writable(tmp_path: Path) -> None:
    told = variables_of(node(tmp_path))
    assert (told["HF_ENDPOINT"], told["HF_HUB_CACHE"], told["HF_HUB_DISABLE_XET"]) == (URL, str(tmp_path), "1")
    assert told["HF_HUB_DISABLE_UPDATE_CHECK"] == "1", "`hf` asks PyPI otherwise"
    assert "HF_HUB_CACHE" not in variables_of(node(tmp_path / "of-somebody-else"))


def test_a_daemon_without_an_endpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="hub_listen"):
        variables_of(node(tmp_path, hub=None))
