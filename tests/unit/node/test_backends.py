"""Where a node's bytes can come from, made from its settings and a torrent."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.settings import Settings
from p2pmodel.node.backends import FetchOrigin, OriginRegistry, endpoints_of, mirrors_with_webseeds
from p2pmodel.node.reporter import Reporter
from p2pmodel.swarm.torrents import parse
from tests.support.node_swarm import assert_nothing_runs
from tests.support.torrent_files import COMMIT, SMALL, torrent_of

OWN = MirrorSettings(name="own", endpoint="http://own.test/hub", token=SecretStr("secret"))


def metainfo_with(*webseeds: str, contents=SMALL):
    return parse(torrent_of(contents, webseeds=webseeds))


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://m.test/org/tiny/resolve/", "http://m.test"),
        ("https://m.test:8443/some/prefix/org/tiny/resolve/", "https://m.test:8443/some/prefix"),
        (f"http://m.test/org/tiny/resolve/{COMMIT}/", "http://m.test"),
    ],
)
def test_the_endpoint_behind_a_webseed(url: str, endpoint: str) -> None:
    assert endpoints_of(metainfo_with(url)) == [endpoint]


@pytest.mark.parametrize("url", ["http://m.test/org/other/resolve/", "http://m.test/files/", "http://m.test/"])
def test_a_webseed_that_is_no_hub_is_left_to_other_clients(url: str) -> None:
    assert endpoints_of(metainfo_with(url)) == []


def test_own_mirrors_come_first_and_webseeds_get_no_token() -> None:
    metainfo = metainfo_with("http://a.test/org/tiny/resolve/", "http://b.test/org/tiny/resolve/")
    listed = mirrors_with_webseeds([OWN], metainfo)
    assert [mirror.endpoint for mirror in listed] == [OWN.endpoint, "http://a.test", "http://b.test"]
    assert [mirror.token for mirror in listed] == [OWN.token, None, None]
    assert len({mirror.name for mirror in listed}) == 3


def test_a_webseed_that_is_an_own_mirror_keeps_its_settings() -> None:
    assert mirrors_with_webseeds([OWN], metainfo_with("http://own.test/hub/org/tiny/resolve/")) == [OWN]


def test_without_a_torrent_there_are_the_own_mirrors() -> None:
    assert mirrors_with_webseeds([OWN], None) == [OWN]


async def test_the_steps_of_a_fetch_share_one_origin_while_the_mirrors_are_the_same(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path, mirrors=(OWN,))
    same, more = (metainfo_with(f"{url}/org/tiny/resolve/") for url in ("http://own.test/hub", "http://a.test"))
    registry = OriginRegistry()
    async with FetchOrigin(settings, registry, Reporter()) as mirrors:
        first = await mirrors.opened()
        assert first is await mirrors.opened(same)
        assert registry.counters().keys() == {"own"}
        second = await mirrors.opened(more)
        assert second is not first
        assert [status.endpoint for status in second.statuses()] == [OWN.endpoint, "http://a.test"]
    await assert_nothing_runs()


async def test_offline_there_is_no_origin(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path, mirrors=(OWN,), offline=True)
    async with FetchOrigin(settings, OriginRegistry(), Reporter()) as mirrors:
        assert await mirrors.opened() is None
