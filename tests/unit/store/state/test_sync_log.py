"""The sync log on disk: many writers, crashes, and damaged logs that are not continued."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from p2pmodel.errors import IntegrityError, LocalResource
from p2pmodel.store.state.sync_log import SyncLog, verify_log
from tests.support.hub_snapshot import snapshot_of

SNAPSHOT = snapshot_of({"config.json": b"{}", "model.safetensors": b"w" * 1000})
MANIFEST = SNAPSHOT.manifest


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(b"{}")
    return path


@pytest.fixture
def log(tmp_path: Path) -> SyncLog:
    return SyncLog(tmp_path / "logs" / "sync.jsonl", clock=lambda: 1e9)


def test_the_recorded_fields(log: SyncLog, content: Path) -> None:
    log.record(MANIFEST, SNAPSHOT.file("config.json"), content, ["official"], "mirror official")
    log.record(MANIFEST, SNAPSHOT.file("model.safetensors"), content, [], "record")
    small, weights = (json.loads(line) for line in log.path.read_text().splitlines())
    assert small["time"] == "2001-09-09T01:46:40.000+00:00"
    assert (small["repo"], small["commit"], small["path"]) == ("org/model", SNAPSHOT.commit, "config.json")
    assert small["sha256"] == hashlib.sha256(b"{}").hexdigest(), "git's own hash vouches for less"
    assert weights["sha256"] == weights["etag"] == SNAPSHOT.file("model.safetensors").sha256
    assert (small["sources"], weights["sources"]) == (["official"], [])
    assert (small["vouched_by"], weights["vouched_by"]) == ("mirror official", "record")
    assert verify_log(log.path).seq == 2


def test_several_write_at_once(log: SyncLog, content: Path) -> None:
    file = SNAPSHOT.file("config.json")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: SyncLog(log.path).record(MANIFEST, file, content, ["m"], "mirror m"), range(40)))
    assert verify_log(log.path).seq == 40


def test_a_line_that_a_crash_tore_is_taken_off(log: SyncLog, content: Path) -> None:
    for _ in range(2):
        log.record(MANIFEST, SNAPSHOT.file("config.json"), content, ["m"], "mirror m")
    whole = log.path.read_bytes()
    for cut in (1, 50, len(whole) // 2 - 1):
        log.path.write_bytes(whole[:-cut])
        with pytest.raises(IntegrityError, match="line 2"):
            verify_log(log.path)
        log.check_end()
        assert verify_log(log.path).seq == 1
        log.record(MANIFEST, SNAPSHOT.file("config.json"), content, ["m"], "mirror m")
        assert log.path.read_bytes() == whole


def test_a_first_line_that_was_torn(log: SyncLog) -> None:
    log.path.parent.mkdir()
    log.path.write_bytes(b"{")
    log.check_end()
    assert verify_log(log.path).seq == 0


@pytest.mark.parametrize("wrong", [b"{}\n", b"x" * 200_000])
def test_a_log_that_is_none_is_left_alone(log: SyncLog, content: Path, wrong: bytes) -> None:
    log.path.parent.mkdir()
    log.path.write_bytes(wrong)
    for attempt in (log.check_end, lambda: log.record(MANIFEST, SNAPSHOT.file("config.json"), content, [], "record")):
        with pytest.raises(IntegrityError, match="sync log"):
            attempt()
    assert log.path.read_bytes() == wrong


def test_written_lines_are_never_rewritten(log: SyncLog, content: Path) -> None:
    before = b""
    for _ in range(5):
        log.record(MANIFEST, SNAPSHOT.file("config.json"), content, ["m"], "mirror m")
        now = log.path.read_bytes()
        assert now.startswith(before)
        before = now
    assert log.path.stat().st_size == len(before)


def test_no_log_is_one_clear_line(log: SyncLog) -> None:
    with pytest.raises(LocalResource, match=r"sync\.jsonl"):
        verify_log(log.path)
