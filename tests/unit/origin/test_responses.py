import hashlib
from datetime import UTC, datetime

import pytest

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import (
    AccessDenied,
    EntryNotFound,
    GatedRepo,
    InvalidInput,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
    WrongBytes,
)
from p2pmodel.origin.failures import Failed, RangesIgnored, Refused, status_failure
from p2pmodel.origin.responses import ExpectedRange, check_identity, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COMMIT = "c" * 40
FILE = ManifestFile("model.safetensors", 100, "a" * 40, "b" * 64)
PAGE = ManifestFile("docs/index.html", 100, "a" * 40)
MANIFEST = Manifest(RepoId("org/model"), COMMIT, (FILE, PAGE))
PART = ExpectedRange(MANIFEST, FILE, 10, 20)
WHOLE = ExpectedRange(MANIFEST, FILE, 0, 100)
RIGHT = {"Content-Range": "bytes 10-19/100", "Content-Length": "10", "X-Repo-Commit": COMMIT}


def check(status, headers, wanted=PART, *, has_token=False):
    judge(status, headers, wanted, now=NOW, has_token=has_token)


def test_correct_responses_are_accepted():
    check(206, RIGHT)
    check(206, {"Content-Range": "bytes 10-19/100"})
    check(200, {"Content-Length": "100"}, WHOLE)
    check(200, {}, WHOLE)
    check(200, {"Content-Type": "text/html"}, ExpectedRange(MANIFEST, PAGE, 0, 100))
    check(206, RIGHT | {"Content-Encoding": "identity"})


def test_the_whole_file_is_requested_without_a_range():
    assert WHOLE.header == {}
    assert PART.header == {"Range": "bytes=10-19"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "an HTML page"),
        ({"Content-Encoding": "gzip"}, "gzip-compressed"),
        ({"X-Repo-Commit": "d" * 40}, f"stale, it serves commit {'d' * 40}"),
        ({"X-Repo-Commit": "nonsense\x1b"}, "stale"),
        ({"Content-Range": "bytes 10-19/101"}, "wrong size: 101 bytes instead of 100"),
        ({"Content-Range": "bytes 10-19/*"}, "wrong size: an unknown size"),
        ({"Content-Range": "bytes 9-18/100"}, "bytes 9-19 instead of 10-20"),
        ({"Content-Range": "bytes 10-18/100"}, "bytes 10-19 instead of 10-20"),
        ({"Content-Range": ""}, "without a Content-Range"),
        ({"Content-Length": "11"}, "wrong size: 11 bytes"),
    ],
)
def test_headers_that_contradict_the_request(change, reason):
    with pytest.raises(Refused) as caught:
        check(206, RIGHT | change)
    assert caught.value.error is WrongBytes
    assert reason in caught.value.reason
    assert caught.value.reason.isprintable()


def test_the_whole_file_instead_of_a_range():
    with pytest.raises(RangesIgnored):
        check(200, {"Content-Length": "100"})
    with pytest.raises(Refused, match="99 bytes instead of 100"):
        check(200, {"Content-Length": "99"})


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_temporary_errors_are_retryable(status):
    with pytest.raises(Failed) as caught:
        check(status, {"Retry-After": "7"})
    assert caught.value.wait == 7
    with pytest.raises(Failed) as caught:
        check(status, {})
    assert caught.value.wait is None


def test_an_unsatisfied_range_gives_the_size():
    with pytest.raises(Refused, match="wrong size: 5 bytes"):
        check(416, {"Content-Range": "bytes */5"})
    with pytest.raises(Failed, match="416"):
        check(416, {"Content-Range": "bytes */100"})
    with pytest.raises(Failed, match="416"):
        check(416, {})


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "", AccessDenied),
        (403, "", AccessDenied),
        (403, "GatedRepo", GatedRepo),
        (401, "RepoNotFound", RepoNotFound),
        (404, "RepoNotFound", RepoNotFound),
        (404, "RevisionNotFound", RevisionNotFound),
        (404, "EntryNotFound", EntryNotFound),
        (404, "", EntryNotFound),
        (410, "", EntryNotFound),
        (204, "", Unavailable),
        (400, "", InvalidInput),
        (451, "Whatever", Unavailable),
    ],
)
def test_permanent_errors_are_not_retryable(status, code, error):
    with pytest.raises(Refused) as caught:
        check(status, {"X-Error-Code": code} if code else {})
    assert caught.value.error is error


def test_a_rejected_token_is_named_in_the_error():
    with pytest.raises(Refused, match="its token is not accepted"):
        check(401, {}, has_token=True)
    with pytest.raises(Refused, match="it requires a token"):
        check(401, {})


def test_the_commit_is_checked_if_a_header_names_it():
    check_identity({}, PART)
    check_identity({"X-Repo-Commit": COMMIT}, PART)
    with pytest.raises(Refused):
        check_identity({"X-Repo-Commit": "d" * 40}, PART)


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5"])
def test_an_etag_of_another_kind_is_no_proof_against_the_bytes(kind):
    etag = f'"{hashlib.new(kind, b"the content").hexdigest()}"'
    for wanted in (PART, WHOLE):
        check_identity({"X-Repo-Commit": COMMIT, "ETag": etag}, wanted)
        if len(etag) - 2 != len(wanted.file.etag):
            check_identity({"X-Repo-Commit": COMMIT, "X-Linked-Etag": etag}, wanted)


def test_another_hash_of_the_hub_means_another_file():
    other = "a" * len(PART.file.etag)
    with pytest.raises(Refused, match=f"stale, its file has the hash {other}"):
        check_identity({"X-Linked-Etag": f'"{other}"'}, PART)


@pytest.mark.parametrize("status", [408, 409, 421, 423, 425, 429, 500, 502, 503, 504, 599])
def test_these_statuses_are_worth_another_request(status):
    assert status_failure(status, {"Retry-After": "7"}, NOW) == Failed(f"HTTP {status}", wait=7.0, status=status)


@pytest.mark.parametrize("status", [300, 400, 401, 404, 418, 451, 501])
def test_all_others_are_final(status):
    assert isinstance(status_failure(status, {"Retry-After": "7"}, NOW), Refused)
