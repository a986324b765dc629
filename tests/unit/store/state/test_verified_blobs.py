"""The journal of verified blobs: several writers, incomplete lines after crashes, and changed blobs."""

import json
import os
from pathlib import Path

import pytest

from p2pmodel.store.state.verified_blobs import VerifiedBlobs


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / ".p2pmodel" / "verified.jsonl"


def test_it_remembers_across_runs(journal: Path, blob: Path) -> None:
    VerifiedBlobs(journal).add({"e1": blob})
    assert VerifiedBlobs(journal).holds("e1", blob)
    assert not VerifiedBlobs(journal).holds("e2", blob)


def test_any_change_of_the_blob_ends_the_trust(journal: Path, blob: Path) -> None:
    verified = VerifiedBlobs(journal)
    verified.add({"e1": blob})
    status = blob.stat()
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not verified.holds("e1", blob)
    verified.add({"e1": blob})
    blob.write_bytes(b"longer content")
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not verified.holds("e1", blob)
    verified.add({"e1": blob})
    copy = blob.with_name("copy")
    copy.write_bytes(blob.read_bytes())
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    copy.replace(blob)
    assert not verified.holds("e1", blob)
    blob.unlink()
    assert not verified.holds("e1", blob)
    verified.add({"e1": blob})
    assert not verified.holds("e1", blob)


def test_two_concurrent_runs_read_each_others_lines(journal: Path, blob: Path) -> None:
    first, second = VerifiedBlobs(journal), VerifiedBlobs(journal)
    first.add({"e1": blob})
    assert second.holds("e1", blob)
    second.add({"e2": blob})
    assert first.holds("e2", blob)
    second.forget("e1")
    assert not first.holds("e1", blob)
    journal.unlink()
    assert not first.holds("e2", blob)
    first.add({"e3": blob})
    assert second.holds("e3", blob)
    assert not second.holds("e2", blob)


@pytest.mark.parametrize(
    "torn", [b'{"etag": "e9", "si', b"\xff\xfe\n", b"[]\n", b"null\n", b'{"etag": 1}\n', b"[" * 99999 + b"\n"]
)
def test_a_torn_line_costs_only_itself(journal: Path, blob: Path, torn: bytes) -> None:
    VerifiedBlobs(journal).add({"e1": blob})
    with journal.open("ab") as out:
        out.write(torn)
    verified = VerifiedBlobs(journal)
    assert verified.holds("e1", blob)
    verified.add({"e2": blob})
    assert verified.holds("e2", blob)
    assert VerifiedBlobs(journal).holds("e2", blob)


def test_a_recorded_blob_is_not_written_again(journal: Path, blob: Path) -> None:
    verified = VerifiedBlobs(journal)
    for _ in range(5):
        verified.add({"e1": blob})
        verified.forget("e2")
    lines = [line for line in journal.read_text().splitlines() if line]
    assert len(lines) == 1
    assert set(json.loads(lines[0])) == {"etag", "size", "mtime_ns", "inode"}


def test_an_unreadable_journal_is_an_empty_one(journal: Path, blob: Path) -> None:
    journal.mkdir(parents=True)
    assert not VerifiedBlobs(journal).holds("e1", blob)
