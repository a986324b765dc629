from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.origin.headers import ContentRange, content_range, retry_after

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = st.integers(0, 10**15)


@given(start=SIZES, length=st.integers(1, 10**9), rest=SIZES)
def test_a_range_reads_back(start, length, rest):
    total = start + length + rest
    parsed = content_range(f"bytes {start}-{start + length - 1}/{total}")
    assert parsed == ContentRange(start, start + length, total)


@given(st.text(max_size=40))
def test_no_text_breaks_the_range_parser(text):
    parsed = content_range(text)
    assert parsed is None or parsed.start is None or parsed.start < (parsed.end or 0)


@pytest.mark.parametrize(
    "text",
    [None, "", "bytes", "bytes 0-1", "bytes 5-4/10", "bytes 0-10/10", "bytes -1-2/3", "items 0-1/2", "bytes 0-1/2,3",
     "bytes ٠-١/٢", "bytes 0-1/" + "9" * 30, "bytes 0 - 1/2"],
)  # fmt: skip
def test_malformed_ranges(text):
    assert content_range(text) is None


def test_unsatisfied_and_unknown_lengths():
    assert content_range("bytes */123") == ContentRange(None, None, 123)
    assert content_range("Bytes 0-4/*") == ContentRange(0, 5, None)


@given(st.integers(0, 10**6))
def test_retry_after_in_seconds(seconds):
    assert retry_after({"Retry-After": str(seconds)}, NOW) == seconds


@given(st.integers(-(10**6), 10**6))
def test_retry_after_as_a_date(seconds):
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after({"Retry-After": date}, NOW) == max(0, seconds)


@given(st.integers(0, 10**6), st.integers(-(10**6), 10**6))
def test_a_wrong_clock_does_not_change_a_retry_after(seconds, wrong):
    headers = {
        "Date": format_datetime(NOW, usegmt=True),
        "Retry-After": format_datetime(NOW + timedelta(seconds=seconds), usegmt=True),
    }
    assert retry_after(headers, NOW + timedelta(seconds=wrong)) == seconds


@given(st.text(max_size=60))
def test_no_text_breaks_the_retry_after_parser(text):
    found = retry_after({"Retry-After": text}, NOW)
    assert found is None or found >= 0


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "Wed, 99 Foo 2026", "inf", "nan"])
def test_an_invalid_retry_after_is_ignored(text):
    assert retry_after({"Retry-After": text}, NOW) is None


def test_the_hubs_rate_limit_counts_only_when_exhausted():
    assert retry_after({"RateLimit": '"api";r=0;t=55'}, NOW) == 55
    assert retry_after({"RateLimit": '"api";r=10;t=55'}, NOW) is None
    assert retry_after({}, NOW) is None
