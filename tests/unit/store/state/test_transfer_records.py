"""A node's records of its transfers: the last saved version is loaded, whatever else is in the folder."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import RepoId, transfer_id
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords

RECORD = TransferRecord(
    repo=RepoId("org/model"),
    commit="ab" * 20,
    revisions=("main", "refs/pr/1"),
    selections=(Selection(("*.json",), ("a/*",)), Selection()),
    peers=(("127.0.0.1", 6881),),
    priority=-3,
    paused=True,
    added=12.5,
    prefetch=(Selection(("*.safetensors",)),),
)


@pytest.fixture
def records(tmp_path: Path) -> TransferRecords:
    return TransferRecords(tmp_path / "transfers")


def test_no_folder_exists_before_the_first_record(records: TransferRecords, tmp_path: Path):
    assert records.load() == ([], [])
    assert not (tmp_path / "transfers").exists()


def test_the_last_saved_version_is_loaded(records: TransferRecords):
    records.save(RECORD)
    records.save(replace(RECORD, paused=False, complete=True))
    other = replace(RECORD, commit="cd" * 20, added=1.0)
    records.save(other)
    assert records.load() == ([other, replace(RECORD, paused=False, complete=True)], [])


def test_a_record_of_an_earlier_version_has_nothing_of_follow_lists(records: TransferRecords, tmp_path: Path):
    records.save(RECORD)
    path = tmp_path / "transfers" / f"{RECORD.id}.json"
    plain = json.loads(path.read_text())
    del plain["prefetch"]
    path.write_text(json.dumps(plain))
    assert records.load() == ([replace(RECORD, prefetch=())], [])


def test_a_torrent_is_stored_until_its_transfer_is_forgotten(records: TransferRecords):
    assert records.torrent(RECORD.id) is None
    records.save(RECORD)
    records.save_torrent(RECORD.id, b"d4:infoe")
    assert records.torrent(RECORD.id) == b"d4:infoe"
    records.forget(RECORD.id)
    records.forget(RECORD.id)
    assert records.load() == ([], [])
    assert records.torrent(RECORD.id) is None


def test_only_this_user_reads_records_and_torrents_which_may_name_trackers_with_keys(
    records: TransferRecords, tmp_path: Path
):
    before = os.umask(0)
    try:
        records.save(replace(RECORD, trackers=("http://tracker.example/announce/k3y",)))
        records.save_torrent(RECORD.id, b"d4:infoe")
    finally:
        os.umask(before)
    folder = tmp_path / "transfers"
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert (folder.stat().st_mode & 0o777, modes) == (0o700, {".json": 0o600, ".torrent": 0o600})


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"null", b'{"repo": "a/b"}', b"\xff", b"[" * 20_000])
def test_a_damaged_record_is_reported_and_ignored(records: TransferRecords, tmp_path: Path, damage: bytes):
    records.save(RECORD)
    (tmp_path / "transfers" / "0123456789ab.json").write_bytes(damage)
    found, notes = records.load()
    assert found == [RECORD]
    assert len(notes) == 1
    assert "0123456789ab.json is damaged" in notes[0]


def test_a_record_cannot_name_a_way_out_of_the_cache(records: TransferRecords, tmp_path: Path):
    records.save(RECORD)
    path = tmp_path / "transfers" / f"{RECORD.id}.json"
    plain = path.read_text()
    for wrong in (plain.replace("refs/pr/1", "../../x"), plain.replace("org/model", "../x"), plain.replace("ab", "/.")):
        path.write_text(wrong)
        assert records.load()[0] == []


def test_an_id_is_no_path(records: TransferRecords):
    for wrong in ("../x", "", "0123456789aB"):
        with pytest.raises(InvalidInput):
            records.torrent(wrong)


def test_a_folder_that_cannot_be_written_is_an_error(records: TransferRecords, tmp_path: Path):
    (tmp_path / "transfers").write_text("a file")
    with pytest.raises(LocalResource):
        records.save(RECORD)


@given(st.sampled_from(["a/b", "a/c", "d"]), st.sampled_from(["11" * 20, "22" * 20]))
def test_an_id_is_of_the_snapshot_alone(repo: str, commit: str):
    one = TransferRecord(RepoId(repo), commit)
    assert one.id == transfer_id(RepoId(repo), commit) == replace(one, priority=4, revisions=("x",)).id
    assert one.id != transfer_id(RepoId("a/other"), commit)
