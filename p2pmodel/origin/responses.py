"""Checks of a mirror's response by status and headers, before any byte of the body is used. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import is_commit, printable
from p2pmodel.errors import AccessDenied, EntryNotFound, GatedRepo, NotFound, WrongBytes
from p2pmodel.origin.failures import Failed, RangesIgnored, Refused, status_failure
from p2pmodel.origin.headers import content_range, whole_number

_HASH = re.compile(r'(?:W/)?"?([0-9a-fA-F]{40}|[0-9a-fA-F]{64})"?')
_REDIRECT_EXPIRED = {400, 401, 403, 404, 410}


@dataclass(frozen=True, slots=True)
class ExpectedRange:
    """Bytes `start` to `end` (exclusive) of one file of a snapshot."""

    manifest: Manifest
    file: ManifestFile
    start: int
    end: int

    @property
    def whole(self) -> bool:
        """Whether that is all of the file."""
        return self.start == 0 and self.end == self.file.size

    @property
    def header(self) -> dict[str, str]:
        """The Range header, none for the whole file."""
        return {} if self.whole else {"Range": f"bytes={self.start}-{self.end - 1}"}


def check_identity(headers: Mapping[str, str], wanted: ExpectedRange) -> None:
    """Raise Refused if the headers name another commit than the requested one, or another hash of the hub's. A mirror
    that names neither is checked by the hash of its bytes.

    A mere ETag proves nothing: each server makes it as it likes, many from a hash of the content that is not the hub's.
    """
    commit = headers.get("X-Repo-Commit")
    if commit and commit != wanted.manifest.commit:
        got = f"commit {commit}" if is_commit(commit) else f"commit '{printable(commit, 40)}'"
        raise Refused(f"stale, it serves {got}", WrongBytes, got)
    found = hub_hash(headers.get("X-Linked-Etag", ""))
    if found and len(found) == len(wanted.file.etag) and found != wanted.file.etag:
        raise Refused(f"stale, its file has the hash {found}", WrongBytes, f"hash {found}")


def hub_hash(etag: str) -> str | None:
    """The sha256 or git blob id in an ETag header of a hub; None if it holds neither."""
    found = _HASH.fullmatch(etag.strip())
    return found[1].lower() if found else None


def expired(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a redirect's target may have refused because the presigned address has expired."""
    return status in _REDIRECT_EXPIRED and "X-Error-Code" not in headers


def judge(status: int, headers: Mapping[str, str], wanted: ExpectedRange, *, now: datetime, has_token: bool) -> None:
    """Return if the headers announce exactly the bytes of `wanted`.

    Raises Failed if a retry may help, RangesIgnored for the whole file instead of a range, and Refused.
    """
    if status not in (200, 206):
        raise _bad_status(status, headers, wanted, now=now, has_token=has_token)
    check_identity(headers, wanted)
    if is_html(headers) and not wanted.file.path.lower().endswith((".html", ".htm")):
        raise Refused("an HTML page instead of the file", WrongBytes, "an HTML page")
    if encoding := compression(headers):
        raise Refused(f"a {encoding}-compressed body that was not requested", WrongBytes, f"a {encoding} stream")
    if status == 206:
        _check_partial(headers, wanted)
    else:
        _check_whole(headers, wanted)


def _check_partial(headers: Mapping[str, str], wanted: ExpectedRange) -> None:
    found = content_range(headers.get("Content-Range"))
    if found is None or found.start is None:
        raise Refused("a part without a Content-Range header", WrongBytes, "an unnamed range")
    if found.total != wanted.file.size:
        raise _wrong_size(found.total, wanted)
    if (found.start, found.end) != (wanted.start, wanted.end):
        got = f"bytes {found.start}-{found.end}"
        raise Refused(f"{got} instead of {wanted.start}-{wanted.end}", WrongBytes, got)
    _check_length(headers, wanted.end - wanted.start, wanted)


def _check_whole(headers: Mapping[str, str], wanted: ExpectedRange) -> None:
    _check_length(headers, wanted.file.size, wanted)
    if not wanted.whole:
        raise RangesIgnored


def _check_length(headers: Mapping[str, str], expected: int, wanted: ExpectedRange) -> None:
    length = headers.get("Content-Length")
    if length is not None and length != str(expected):
        raise _wrong_size(whole_number(length), wanted)


def _wrong_size(got: int | None, wanted: ExpectedRange) -> Refused:
    size = "an unknown size" if got is None else f"{got} bytes"
    return Refused(f"wrong size: {size} instead of {wanted.file.size}", WrongBytes, size)


def is_html(headers: Mapping[str, str]) -> bool:
    """Whether the body is an HTML page."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def compression(headers: Mapping[str, str]) -> str:
    """The body's Content-Encoding as it may appear in a message; empty if it is not compressed."""
    encoding = headers.get("Content-Encoding", "").strip().lower()
    return "" if encoding == "identity" else printable(encoding, 20)


def _bad_status(
    status: int, headers: Mapping[str, str], wanted: ExpectedRange, *, now: datetime, has_token: bool
) -> Failed | Refused:
    if status == 416:
        found = content_range(headers.get("Content-Range"))
        if found is not None and found.total is not None and found.total != wanted.file.size:
            return _wrong_size(found.total, wanted)
        return Failed("HTTP 416 (range refused)", status=status)
    failure = status_failure(status, headers, now)
    if isinstance(failure, Failed):
        return failure
    if failure.error is GatedRepo:
        return Refused(f"HTTP {status} (gated repository)", GatedRepo)
    if failure.error is AccessDenied:
        why = "its token is not accepted" if has_token else "it requires a token"
        return Refused(f"HTTP {status} ({why})", AccessDenied)
    # A mirror that lacks the file does not name what is missing; the snapshot is known to exist.
    return Refused(failure.reason, EntryNotFound) if failure.error is NotFound else failure
