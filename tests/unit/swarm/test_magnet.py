"""Magnet links: libtorrent reads ours, and parsed ones are bounded and safe."""

import libtorrent as lt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.magnet import Magnet, magnet_of, parse_magnet
from p2pmodel.swarm.metainfo import Format
from p2pmodel.swarm.parsing import parse
from tests.support.torrent_files import COMMIT, SMALL, torrent_of

HASH = "ab" * 32
TRACKERS = ("http://10.0.0.1:6969/announce?token=a&b=c", "udp://t:80")
WEBSEEDS = ("https://hub/org/tiny/resolve/",)


@pytest.mark.parametrize("form", ["v2", "hybrid"])
def test_written_magnets_are_read_by_libtorrent_and_by_us(form: Format) -> None:
    metainfo = parse(torrent_of(SMALL, form, trackers=TRACKERS, webseeds=WEBSEEDS))
    link = magnet_of(metainfo, sources=("http://catalog/x.torrent",))
    theirs = lt.parse_magnet_uri(link)
    assert str(theirs.info_hashes.v2) == metainfo.info_hash
    assert theirs.info_hashes.has_v1() == (form == "hybrid")
    assert theirs.name == COMMIT
    assert tuple(theirs.trackers) == TRACKERS
    assert tuple(theirs.url_seeds) == WEBSEEDS
    assert parse_magnet(link) == Magnet(
        info_hash=metainfo.info_hash,
        name=COMMIT,
        trackers=TRACKERS,
        webseeds=WEBSEEDS,
        sources=("http://catalog/x.torrent",),
    )


def test_libtorrents_own_links_are_read() -> None:
    params = lt.load_torrent_buffer(torrent_of(SMALL, trackers=TRACKERS, webseeds=WEBSEEDS))
    link = lt.make_magnet_uri(params)
    assert parse_magnet(link).info_hash == str(params.info_hashes.v2)
    assert parse_magnet(link).trackers == TRACKERS


def test_numbered_and_upper_case_fields_are_read() -> None:
    link = f"MAGNET:?xt.1=urn:btih:{'0' * 40}&xt.2=URN:BTMH:1220{HASH.upper()}&tr.1=http://a/&tr.2=http://b/"
    assert parse_magnet(link) == Magnet(HASH, trackers=("http://a/", "http://b/"))


def test_unsafe_addresses_are_ignored() -> None:
    link = f"magnet:?xt=urn:btmh:1220{HASH}&tr=file:///etc/passwd&ws=ftp://x/&xs=urn:btih:1&tr=wss://x&tr=http://ok/"
    assert parse_magnet(link) == Magnet(HASH, trackers=("http://ok/",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://x/", "'http://x/' is not a magnet link"),
        ("magnet:?xt=urn:btih:" + "0" * 40, "the magnet link is v1 only"),
        ("magnet:?", "without one v2 info-hash"),
        (f"magnet:?xt=urn:btmh:1220{HASH}0", "without one v2 info-hash"),
        (f"magnet:?xt=urn:btmh:1114{HASH}", "without one v2 info-hash"),
        (f"magnet:?xt=urn:btmh:1220{HASH}&xt=urn:btmh:1220{'0' * 64}", "without one v2 info-hash"),
        (f"magnet:?xt=urn:btmh:1220{HASH}" + "&tr=x" * 500, "too many fields"),
        (f"magnet:?xt=urn:btmh:1220{HASH}&dn=" + "x" * 40_000, "is not a magnet link"),
    ],
)
def test_each_fault_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match="magnet") as caught:
        parse_magnet(text)
    assert message in str(caught.value)


@given(st.text(max_size=60).map(lambda text: f"magnet:?xt=urn:btmh:1220{HASH}&" + text) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    line = "fine"
    try:
        parse_magnet(text)
    except InvalidInput as error:
        line = str(error)
    assert line.isprintable()
