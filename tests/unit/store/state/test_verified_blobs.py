"""The journal of verified blobs: several writers, incomplete lines after crashes, and changed blobs."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.store.private_folder import PrivateFolder
from p2pmodel.store.state.verified_blobs import JOURNAL, BlobMarks, BlobState, Fingerprint, VerifiedBlobs, fingerprint


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def private(tmp_path: Path) -> PrivateFolder:
    return PrivateFolder(tmp_path, "models--org--model")


@pytest.fixture
def journal(private: PrivateFolder) -> Path:
    return private.made / JOURNAL


def found(etag: str, blob: Path) -> dict[str, Fingerprint]:
    now = fingerprint(blob)
    return {etag: now} if now else {}


def state(verified: VerifiedBlobs, etag: str, blob: Path) -> BlobState:
    return verified.states({etag: fingerprint(blob)})[etag]


def test_it_remembers_across_runs(private: PrivateFolder, blob: Path) -> None:
    VerifiedBlobs(private).add(found("e1", blob))
    assert VerifiedBlobs(private).holds("e1", blob)
    assert not VerifiedBlobs(private).holds("e2", blob)


def test_any_change_of_the_blob_ends_the_trust(private: PrivateFolder, blob: Path) -> None:
    verified = VerifiedBlobs(private)
    verified.add(found("e1", blob))
    status = blob.stat()
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not verified.holds("e1", blob)
    verified.add(found("e1", blob))
    blob.write_bytes(b"longer content")
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not verified.holds("e1", blob)
    verified.add(found("e1", blob))
    copy = blob.with_name("copy")
    copy.write_bytes(blob.read_bytes())
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    copy.replace(blob)
    assert not verified.holds("e1", blob)
    blob.unlink()
    assert not verified.holds("e1", blob)
    verified.add(found("e1", blob))
    assert not verified.holds("e1", blob)


def test_two_concurrent_runs_read_each_others_lines(private: PrivateFolder, journal: Path, blob: Path) -> None:
    first, second = VerifiedBlobs(private), VerifiedBlobs(private)
    first.add(found("e1", blob))
    assert second.holds("e1", blob)
    second.add(found("e2", blob))
    assert first.holds("e2", blob)
    second.forget("e1")
    assert not first.holds("e1", blob)
    journal.unlink()
    assert not first.holds("e2", blob)
    first.add(found("e3", blob))
    assert second.holds("e3", blob)
    assert not second.holds("e2", blob)


@pytest.mark.parametrize(
    "torn", [b'{"etag": "e9", "si', b"\xff\xfe\n", b"[]\n", b"null\n", b'{"etag": 1}\n', b"[" * 99999 + b"\n"]
)
def test_a_torn_line_costs_only_itself(private: PrivateFolder, journal: Path, blob: Path, torn: bytes) -> None:
    VerifiedBlobs(private).add(found("e1", blob))
    with journal.open("ab") as out:
        out.write(torn)
    verified = VerifiedBlobs(private)
    assert verified.holds("e1", blob)
    verified.add(found("e2", blob))
    assert verified.holds("e2", blob)
    assert VerifiedBlobs(private).holds("e2", blob)


def test_a_recorded_blob_is_not_written_again(private: PrivateFolder, journal: Path, blob: Path) -> None:
    verified = VerifiedBlobs(private)
    for _ in range(5):
        verified.add(found("e1", blob))
        verified.forget("e2")
    lines = [line for line in journal.read_text().splitlines() if line]
    assert len(lines) == 1
    assert set(json.loads(lines[0])) == {"etag", "size", "mtime_ns", "inode", "ctime_ns"}


def test_an_unreadable_journal_is_an_empty_one(private: PrivateFolder, journal: Path, blob: Path) -> None:
    journal.mkdir()
    assert not VerifiedBlobs(private).holds("e1", blob)


def test_damage_is_remembered_until_the_blob_is_replaced_or_found_right(private: PrivateFolder, blob: Path) -> None:
    verified = VerifiedBlobs(private)
    verified.add(found("e1", blob))
    verified.add_damaged(found("e1", blob))
    for each in (verified, VerifiedBlobs(private)):
        assert state(each, "e1", blob) is BlobState.DAMAGED
        assert not each.holds("e1", blob)
    copy = blob.with_name("copy")
    copy.write_bytes(blob.read_bytes())
    copy.replace(blob)
    assert state(verified, "e1", blob) is BlobState.CHANGED
    verified.add(found("e1", blob))
    assert state(VerifiedBlobs(private), "e1", blob) is BlobState.VERIFIED
    verified.add_damaged(found("e1", blob))
    verified.add(found("e1", blob))
    assert state(VerifiedBlobs(private), "e1", blob) is BlobState.VERIFIED


def test_a_blob_without_a_record_is_unknown_and_may_be_served(private: PrivateFolder, blob: Path) -> None:
    verified = VerifiedBlobs(private)
    assert state(verified, "e1", blob) is BlobState.UNKNOWN
    verified.add(found("e1", blob))
    verified.forget("e1")
    assert state(VerifiedBlobs(private), "e1", blob) is BlobState.UNKNOWN
    assert state(verified, "e1", blob.with_name("absent")) is BlobState.MISSING
    usable = {each for each in BlobState if each.usable}
    assert usable == {BlobState.VERIFIED, BlobState.UNKNOWN}


def test_a_change_of_the_ctime_alone_ends_the_trust_and_nothing_else(private: PrivateFolder, blob: Path) -> None:
    verified = VerifiedBlobs(private)
    verified.add(found("e1", blob))
    size, mtime_ns, inode, ctime_ns = found("e1", blob)["e1"]
    forged = (size, mtime_ns, inode, ctime_ns + 1)
    assert verified.states({"e1": forged})["e1"] is BlobState.UNKNOWN
    verified.add_damaged(found("e1", blob))
    assert verified.states({"e1": forged})["e1"] is BlobState.DAMAGED


FILE = ManifestFile("config.json", 2, "a" * 40)


class Calendar:
    """A clock that can be set."""

    def __init__(self) -> None:
        self.now = 1.5e9

    def __call__(self) -> float:
        return self.now


def marked(root: Path, clock: Calendar) -> BlobMarks:
    """A mark on FILE as of `clock`."""
    (root / "models--org--model").mkdir(parents=True)
    private = PrivateFolder(root, "models--org--model")
    marks = BlobMarks(private, "corrupt", clock=clock)
    marks.set(FILE)
    os.utime(private.existing / "corrupt" / FILE.etag, (clock.now, clock.now))
    return marks


@given(st.integers(-(10**8), 10**8), st.integers(0, 10**6))
def test_no_clock_makes_a_mark_younger_than_the_time_since_the_first_look(jump: int, passed: int) -> None:
    clock = Calendar()
    with tempfile.TemporaryDirectory() as folder:
        marks = marked(Path(folder), clock)
        clock.now += jump
        first = marks.time(FILE.etag)
        assert first == min(1.5e9, clock.now)
        clock.now += passed
        again = marks.time(FILE.etag)
    assert again is not None
    assert clock.now - again >= passed


def test_without_a_mark_there_is_no_time(tmp_path: Path) -> None:
    (tmp_path / "models--org--model").mkdir()
    assert BlobMarks(PrivateFolder(tmp_path, "models--org--model"), "corrupt").time(FILE.etag) is None
