"""The files of the chat page: all are served, load nothing from other origins, and allow no other scripts."""

import re

import aiohttp
import pytest

from p2pmodel.serving.endpoint import PAGE, page_file
from tests.support.model_endpoint import serving_model

SCRIPTS = [name for name in PAGE.values() if name.endswith(".js")]
TEXTS = {name: page_file(name).read_text(encoding="utf-8") for name in PAGE.values()}


async def test_the_page_needs_no_key_and_allows_no_other_scripts() -> None:
    async with serving_model(key="sesame-sesame-sesame") as served, aiohttp.ClientSession() as session:
        for path, name in PAGE.items():
            async with session.get(served.url + path) as response:
                assert response.status == 200
                assert await response.text() == TEXTS[name]
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "img-src 'self' data:;" in policy
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
        async with session.get(served.url, headers={"Origin": "http://evil.example"}) as response:
            assert response.status == 403


def test_every_file_of_the_folder_is_served() -> None:
    folder = {path.name for path in page_file("index.html").parent.iterdir()}
    assert folder == set(PAGE.values()) - {"units.js"}


def test_the_page_names_no_other_host_and_has_no_inline_code() -> None:
    page = TEXTS["index.html"]
    assert {f"/{path}" for path in re.findall(r'(?:src|href)="([^"#]+)"', page)} <= set(PAGE), "relative, for prefixes"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page)
    for name, text in TEXTS.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_the_model_says_is_inserted_as_text(name: str) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(", TEXTS[name])
    for imported in re.findall(r'from "\./([^"]+)"', TEXTS[name]):
        assert imported in PAGE.values()


def test_it_calls_only_what_the_endpoint_has() -> None:
    called = set(re.findall(r'new URL\("([^"]+)", BASE\)', TEXTS["api.js"]))
    assert called == {"v1/models", "v1/chat/completions", "startupz"}
