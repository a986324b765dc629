"""Listings of hubs, and arbitrary values in their place."""

import json
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from p2pmodel.origin.failures import Failed, RangesIgnored, Refused, status_failure
from p2pmodel.origin.headers import content_range, retry_after, whole_number
from p2pmodel.origin.json_body import _decode
from p2pmodel.origin.listing import following, model_info, tree_page
from p2pmodel.origin.requests import target_of
from p2pmodel.origin.responses import ExpectedRange, check_identity, judge
from tests.support.hub_snapshot import snapshot_of
from tests.support.virtual_clock import VirtualClock

SNAPSHOT = snapshot_of({"config.json": b"{}", "w/model.safetensors": bytes(1000)})
PAGE = URL("http://hub.test/hf/api/models/org/model/tree/main?recursive=true")
NOW = VirtualClock().date()
HEADERS = (
    *("Content-Range", "Content-Length", "Content-Type", "Content-Encoding", "ETag", "X-Repo-Commit", "X-Linked-Etag"),
    *("X-Error-Code", "Retry-After", "RateLimit", "Link", "Location"),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
plain = st.recursive(scalars, lambda c: st.lists(c, max_size=4) | st.dictionaries(st.text(max_size=8), c, max_size=4))
names = st.sampled_from(
    ["sha", "siblings", "rfilename", "path", "size", "oid", "type", "lfs", "sha256", "blobId", "gated"]
)
entries = st.lists(
    st.dictionaries(names, scalars | st.dictionaries(names, scalars, max_size=3), max_size=6), max_size=4
)
infos = st.dictionaries(names, scalars | entries, max_size=6)
texts = st.text(st.characters(codec=None), max_size=60) | st.from_regex(r"bytes \d{1,25}-\d{1,25}/(\d{1,25}|\*)")
headers = st.dictionaries(st.sampled_from(HEADERS), texts)


def test_a_listing_is_read_as_it_was_written() -> None:
    page = tree_page(SNAPSHOT.tree())
    assert page.files == SNAPSHOT.manifest.files
    assert page.paths == {"config.json", "w", "w/model.safetensors"}
    info = model_info({"sha": SNAPSHOT.commit, "gated": "manual", "siblings": SNAPSHOT.siblings()})
    assert (info.commit, info.private, info.files) == (SNAPSHOT.commit, True, SNAPSHOT.manifest.files)
    assert info.complete
    assert not model_info({"sha": SNAPSHOT.commit, "siblings": [{"rfilename": "a"}]}).complete


def reason_of(run: Callable[[], object]) -> str:
    """Why a source is left out, if it is; another exception passes through."""
    try:
        run()
    except (Failed, Refused) as failure:
        return failure.reason
    except RangesIgnored:
        pass
    return ""


@settings(max_examples=40)
@given(plain | entries | infos)
def test_other_values_are_refused_or_read(value: object) -> None:
    data = json.dumps(value).encode()
    for parse in (model_info, tree_page):
        assert reason_of(partial(_decode, data, parse)).isprintable()


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_json_are_refused(data: bytes) -> None:
    assert reason_of(lambda: _decode(data, tree_page)).isprintable()


@settings(max_examples=40)
@given(headers, st.integers(100, 999))
def test_every_header_is_judged(found: dict[str, str], status: int) -> None:
    given = CIMultiDictProxy(CIMultiDict(found))
    wanted = ExpectedRange(SNAPSHOT.manifest, SNAPSHOT.manifest.files[1], 0, 10)
    content_range(given.get("Content-Range"))
    whole_number(given.get("Content-Length"))
    retry_after(given, NOW)
    for run in (
        lambda: judge(status, given, wanted, now=NOW, has_token=False),
        lambda: judge(206, given, wanted, now=NOW, has_token=True),
        lambda: check_identity(given, wanted),
        lambda: following(given, PAGE),
        lambda: target_of(PAGE, given.get("Location")),
    ):
        assert reason_of(run).isprintable()
    assert isinstance(status_failure(status, given, NOW), Failed | Refused)


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ('</hf/api/models/a/tree/main?cursor=2>; rel="next"', "/api/models/a/tree/main?cursor=2"),
        ('<https://elsewhere.test/api/models/a?cursor=2>; rel="next"', "/api/models/a?cursor=2"),
        ("<http://hub.test/hf/api/models/a?cursor=a%2Fb>;rel=next", "/api/models/a?cursor=a%2Fb"),
        ('<http://hub.test/first>; rel="first", <http://hub.test/api/x>; rel="next"', "/api/x"),
        ('<http://hub.test/api/x>; rel="prev"', None),
        ("", None),
    ],
)
def test_the_next_page_is_below_the_endpoint(link: str, path: str | None) -> None:
    assert following(CIMultiDictProxy(CIMultiDict({"Link": link} if link else {})), PAGE) == path
