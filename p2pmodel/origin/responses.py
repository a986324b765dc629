"""Judging an answer by its status and headers, before a byte of the body is believed. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import is_commit, printable
from p2pmodel.errors import (
    AccessDenied,
    EntryNotFound,
    GatedRepo,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
    WrongBytes,
)
from p2pmodel.origin.failures import Failed, RangesIgnored, Refused
from p2pmodel.origin.headers import content_range, retry_after

_BY_CODE = {
    "GatedRepo": GatedRepo,
    "RepoNotFound": RepoNotFound,
    "RevisionNotFound": RevisionNotFound,
    "EntryNotFound": EntryNotFound,
}
_TRY_AGAIN = {408, 409, 421, 423, 425, 429}
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
    """Raise Refused if the mirror says that its file is another than the one wanted: of another commit than the one
    in the address, or with another hash. What it does not say, the hash of the bytes will."""
    commit = headers.get("X-Repo-Commit")
    if commit and commit != wanted.manifest.commit:
        got = f"commit {commit}" if is_commit(commit) else f"commit '{printable(commit, 40)}'"
        raise Refused(f"stale, it serves {got}", WrongBytes, got)
    # Storage behind a redirect has etags of its own; only a hub's answer is about the hub's hashes.
    etag = headers.get("X-Linked-Etag") or (headers.get("ETag", "") if commit else "")
    found = _HASH.fullmatch(etag.strip())
    if found and found[1].lower() != wanted.file.etag:
        raise Refused(f"stale, its file has the hash {found[1]}", WrongBytes, f"hash {found[1]}")


def expired(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a redirect's target may have refused only because the presigned address is too old."""
    return status in _REDIRECT_EXPIRED and "X-Error-Code" not in headers


def judge(status: int, headers: Mapping[str, str], wanted: ExpectedRange, *, now: datetime, has_token: bool) -> None:
    """Return if the body is what was asked for, byte for byte as far as the headers tell.

    Raises Failed when asking again may help, RangesIgnored for the whole file instead of a range, and Refused.
    """
    if status not in (200, 206):
        raise _bad_status(status, headers, wanted, now=now, has_token=has_token)
    check_identity(headers, wanted)
    if _is_html(headers) and not wanted.file.path.lower().endswith((".html", ".htm")):
        raise Refused("an HTML page instead of the file", WrongBytes, "an HTML page")
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        name = printable(encoding, 20)
        raise Refused(f"a {name}-compressed body though none was asked for", WrongBytes, f"a {name} stream")
    if status == 206:
        _check_partial(headers, wanted)
    else:
        _check_whole(headers, wanted)


def _check_partial(headers: Mapping[str, str], wanted: ExpectedRange) -> None:
    found = content_range(headers.get("Content-Range"))
    if found is None or found.start is None:
        raise Refused("a part without saying which", WrongBytes, "an unnamed range")
    if found.total != wanted.file.size:
        raise _wrong_size(found.total, wanted)
    if (found.start, found.end) != (wanted.start, wanted.end):
        got = f"bytes {found.start}-{found.end}"
        raise Refused(f"{got} when asked for {wanted.start}-{wanted.end}", WrongBytes, got)
    _check_length(headers, wanted.end - wanted.start, wanted)


def _check_whole(headers: Mapping[str, str], wanted: ExpectedRange) -> None:
    _check_length(headers, wanted.file.size, wanted)
    if not wanted.whole:
        raise RangesIgnored


def _check_length(headers: Mapping[str, str], expected: int, wanted: ExpectedRange) -> None:
    length = headers.get("Content-Length")
    if length is not None and length != str(expected):
        raise _wrong_size(int(length) if length.isdecimal() else None, wanted)


def _wrong_size(got: int | None, wanted: ExpectedRange) -> Refused:
    size = "an unknown size" if got is None else f"{got} bytes"
    return Refused(f"wrong size: {size} instead of {wanted.file.size}", WrongBytes, size)


def _is_html(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def _bad_status(
    status: int, headers: Mapping[str, str], wanted: ExpectedRange, *, now: datetime, has_token: bool
) -> Failed | Refused:
    if status in _TRY_AGAIN or status >= 500:
        return Failed(f"HTTP {status}", wait=retry_after(headers, now))
    if status == 416:
        found = content_range(headers.get("Content-Range"))
        if found is not None and found.total is not None and found.total != wanted.file.size:
            return _wrong_size(found.total, wanted)
        return Failed("HTTP 416 (range refused)")
    code = headers.get("X-Error-Code", "")
    if status in (401, 403) and code not in ("RepoNotFound", "RevisionNotFound", "EntryNotFound"):
        return _denied(status, code, has_token=has_token)
    if code in _BY_CODE or status in (404, 410):
        error = _BY_CODE.get(code, EntryNotFound)
        return Refused(f"HTTP {status} ({code})" if code in _BY_CODE else f"HTTP {status}", error)
    return Refused(f"HTTP {status}", Unavailable)


def _denied(status: int, code: str, *, has_token: bool) -> Refused:
    if code == "GatedRepo":
        return Refused(f"HTTP {status} (gated repository)", GatedRepo)
    return Refused(f"HTTP {status} ({'its token is not accepted' if has_token else 'it wants a token'})", AccessDenied)
