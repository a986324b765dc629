"""Addresses of pages, as a browser shows them."""

import pytest

from p2pmodel.core.content.hub_pages import HubPage, hub_page
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import InvalidInput
from p2pmodel.node.snapshot.target import TorrentTarget, parse_target

HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("address", "page"),
    [
        (f"{HUB}/Qwen/Qwen3-8B", HubPage("Qwen/Qwen3-8B")),
        (f"{HUB}/Qwen/Qwen3-8B/?x=1#usage", HubPage("Qwen/Qwen3-8B")),
        (f"{HUB}/gpt2", HubPage("gpt2")),
        (f"{HUB}/gpt2/tree/main", HubPage("gpt2", "main")),
        (f"{HUB}/org/name/tree/v1.0/folder", HubPage("org/name", "v1.0")),
        (f"{HUB}/org/name/tree/refs%2Fpr%2F3", HubPage("org/name", "refs/pr/3")),
        (f"{HUB}/org/name/blob/main/a/b.json", HubPage("org/name", "main", "a/b.json")),
        (f"{HUB}/org/name/resolve/main/a%20b?download=true", HubPage("org/name", "main", "a b")),
        (f"{HUB}/org/name/discussions/7", HubPage("org/name")),
        (f"{HUB}/datasets/org/data/viewer/x", HubPage("datasets/org/data")),
        (f"{HUB}/spaces/org/app/tree/main", HubPage("spaces/org/app", "main")),
        ("https://www.hf-mirror.com/org/name", HubPage("org/name")),
        ("https://modelscope.cn/models/Qwen/Qwen3-8B/files", HubPage("Qwen/Qwen3-8B")),
        ("https://other.example/org/name", None),
        ("https://huggingface.co", None),
        ("https://huggingface.co/api/models/gpt2", None),
        ("https://me@huggingface.co/org/name", None),
        ("https://[", None),
        ("org/name", None),
    ],
)
def test_what_a_page_is_about(address: str, page: HubPage | None) -> None:
    assert hub_page(address) == page


def test_a_page_is_a_repository_wherever_one_is_named() -> None:
    assert Reference.parse(f"{HUB}/org/name/tree/v2") == Reference.parse("org/name@v2")
    assert parse_target(f"{HUB}/datasets/org/name") == Reference.parse("datasets/org/name")
    assert isinstance(parse_target(f"{HUB}/org/name/resolve/main/a.torrent"), TorrentTarget)
    with pytest.raises(InvalidInput, match="disagree"):
        Reference.parse(f"{HUB}/org/name/tree/v2", revision="v1")
