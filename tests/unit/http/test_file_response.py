"""The Range parser against RFC 9110, by example and by chance; files over connections, with sendfile and over TLS."""

import os
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from p2pmodel.http.access_log import SENT
from p2pmodel.http.file_response import (
    STALL,
    ByteRange,
    FileContent,
    RangeNotSatisfiable,
    answer,
    not_modified,
    parse_range,
    range_applies,
)
from p2pmodel.http.server import serving
from p2pmodel.tls import client_context, server_context
from tests.support.certificates import authority
from tests.support.eventually import PATIENCE

SIZES = st.integers(0, 1 << 46)
LARGE = (5 << 20) + 12_345
"""More than one chunk of either kind."""


@pytest.mark.parametrize(
    ("header", "start", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=0-100", 0, 100),
        ("bytes=99-", 99, 1),
        ("bytes=10-19", 10, 10),
        ("bytes=-1", 99, 1),
        ("bytes=-100", 0, 100),
        ("bytes=-1000", 0, 100),
        ("Bytes = 5-6 ", 5, 2),
        ("bytes=0-9999999999999999999", 0, 100),
    ],
)
def test_one_range(header: str, start: int, length: int) -> None:
    assert parse_range(header, 100) == ByteRange(start, length, 100)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=0x1-2",
        "bytes=1-2,4-5",
        "items=0-1",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=0-\u0663",
        "bytes=0-" + "9" * 5000,
        "bytes=200-150",
    ],
)
def test_an_ignored_range_means_the_whole_file(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(("header", "size"), [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100)])
def test_behind_the_end(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable) as error:
        parse_range(header, size)
    assert error.value.content_range == "bytes */100"


def test_an_empty_file_has_no_byte_range_but_has_a_suffix() -> None:
    assert parse_range("bytes=-5", 0) is None
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=0-", 0)


def test_content_range() -> None:
    assert ByteRange(10, 5, 100).content_range == "bytes 10-14/100"


@given(size=SIZES, first=st.integers(0, 1 << 47), length=st.integers(1, 1 << 47))
def test_a_range_is_the_intersection_with_the_file(size: int, first: int, length: int) -> None:
    header = f"bytes={first}-{first + length - 1}"
    if first >= size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(header, size)
    else:
        assert parse_range(header, size) == ByteRange(first, min(length, size - first), size)


@given(size=st.integers(1, 1 << 46), length=st.integers(1, 1 << 47))
def test_a_suffix_is_the_end_of_the_file(size: int, length: int) -> None:
    found = parse_range(f"bytes=-{length}", size)
    assert found is not None
    assert found.start + found.length == size
    assert found.length == min(length, size)


@given(
    header=st.one_of(st.text(max_size=40), st.from_regex(r"bytes=[-0-9, \t]{0,30}", fullmatch=True)),
    size=SIZES,
)
@example(header="bytes=0-", size=0)
def test_no_range_header_reaches_outside_the_file(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    if found is not None:
        assert found.length >= 1
        assert 0 <= found.start <= found.start + found.length <= size == found.size


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ('"abcd"', False),
        ("abc", False),
        ("", False),
    ],
)
def test_if_none_match(header: str | None, *, matches: bool) -> None:
    assert not_modified(header, "abc") is matches


@pytest.mark.parametrize(
    ("header", "applies"),
    [
        (None, True),
        ('"abc"', True),
        ('W/"abc"', False),
        ('"old"', False),
        ("Sat, 01 Nov 2025 00:00:00 GMT", False),
    ],
)
def test_if_range(header: str | None, *, applies: bool) -> None:
    assert range_applies(header, "abc") is applies


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("span", [None, (0, LARGE - 1), (1, 700_000), (LARGE - 3, LARGE - 1)])
async def test_a_file_of_many_chunks_arrives_as_it_is(
    tmp_path: Path, *, tls: bool, span: tuple[int, int] | None
) -> None:
    whole = os.urandom(LARGE)
    sent: list[int] = []
    (tmp_path / "file").write_bytes(whole)

    async def get(request: web.Request) -> web.StreamResponse:
        with (tmp_path / "file").open("rb") as file:
            response = await answer(request, FileContent(LARGE, "tag", file, {}))
        sent.append(request[SENT])
        return response

    app = web.Application()
    app[STALL] = PATIENCE
    app.router.add_get("/", get)
    ca = authority(tmp_path)[0] if tls else None
    ours = server_context(ca, tmp_path / "key.pem") if ca else None
    headers = {"Range": f"bytes={span[0]}-{span[1]}"} if span else {}
    async with serving(app, "127.0.0.1", 0, tls=ours) as url, aiohttp.ClientSession() as session:
        context = client_context(ca, None, None) if ca else True
        async with session.get(url, headers=headers, ssl=context) as got:
            assert await got.read() == (whole[span[0] : span[1] + 1] if span else whole)
    assert sent == [span[1] - span[0] + 1 if span else LARGE]
