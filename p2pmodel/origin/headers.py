"""Parsers of the response headers that a ranged download needs (RFC 9110; the hub's RateLimit)."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{0,9})?", re.ASCII)
_RATE_LIMIT = re.compile(r'"\w+"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})', re.ASCII)


class ContentRange(NamedTuple):
    """`start` and `end` (exclusive) are None for an unsatisfied range, `total` for an unknown length."""

    start: int | None
    end: int | None
    total: int | None


def whole_number(value: str | None) -> int | None:
    """Parse a header of decimal digits; None if it is missing or malformed."""
    return int(value) if value and _WHOLE.fullmatch(value) else None


def content_range(value: str | None) -> ContentRange | None:
    """Parse a Content-Range header (RFC 9110 14.4); None if it is missing or malformed."""
    match = _CONTENT_RANGE.fullmatch((value or "").strip())
    if match is None:
        return None
    first, last, total = match.groups()
    length = None if total == "*" else int(total)
    if first is None:
        return ContentRange(None, None, length)
    start, end = int(first), int(last) + 1
    if end <= start or (length is not None and end > length):
        return None
    return ContentRange(start, end, length)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the server demands before the next request, at least 0; None without a valid header.

    From Retry-After, in seconds or as an HTTP date (RFC 9110 10.2.3), else from an exhausted RateLimit header.
    """
    value = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    if value:
        # Two times of the server's clock: this machine's may differ by hours.
        date, sent = _http_date(value), _http_date(headers.get("Date", "")) or now
        return None if date is None else max(0.0, (date - sent).total_seconds())
    limit = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    return float(limit[1]) if limit else None


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
