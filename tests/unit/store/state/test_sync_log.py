"""The sync log on disk: many writers, crashes, and damaged logs that are not continued."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.files.hash_chain import GENESIS, LogCheck, LogHead, check_line, head_of
from p2pmodel.errors import IntegrityError, LocalResource
from p2pmodel.store.state.sync_log import LogEntry, SyncLog, append, verify_log
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


ENTRY = LogEntry(
    "2026-11-22T00:00:00.000+00:00", "org/m", "0" * 40, "a/\u00e9.bin", 5, "e" * 64, "e" * 64, ["up"], "mirror up"
)


def log_of(count: int) -> list[bytes]:
    lines, head = [], LogHead()
    for size in range(count):
        line, head = append(head, replace(ENTRY, size=size))
        lines.append(line)
    return lines


def verified(lines: list[bytes], expect: str | None = None) -> LogHead:
    checking = LogCheck(expect)
    for line in lines:
        checking.feed(line)
    return checking.end()


def test_a_line_can_be_checked_by_hand() -> None:
    line, head = append(LogHead(), ENTRY)
    body = json.loads(line)
    digest = body.pop("hash")
    assert body["previous"] == GENESIS
    assert (body["seq"], body["path"], body["sources"]) == (1, "a/\u00e9.bin", ["up"])
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    assert digest == head.hash == hashlib.sha256(canonical).hexdigest()


def test_a_log_verifies_and_gives_its_head() -> None:
    lines = log_of(5)
    assert verified(lines) == head_of(lines[-1])
    assert verified(lines).seq == 5
    assert verified([]) == LogHead()


@given(st.integers(0, 4), st.data())
def test_no_byte_can_be_changed(number: int, data: st.DataObject) -> None:
    lines = log_of(5)
    line = bytearray(lines[number])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    lines[number] = bytes(line)
    with pytest.raises(IntegrityError, match=f"line {number + 1} "):
        verified(lines)


@pytest.mark.parametrize("number", range(4))
def test_no_line_can_be_removed_added_or_replaced(number: int) -> None:
    lines = log_of(5)
    for wrong in (
        lines[:number] + lines[number + 1 :],
        [*lines[:number], lines[number], *lines[number:]],
        [*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]],
        [*lines[:number], append(LogHead(number, "1" * 64), ENTRY)[0], *lines[number + 1 :]],
    ):
        with pytest.raises(IntegrityError, match="sync log"):
            verified(wrong)


def test_a_truncated_log_fails_against_a_head_seen_before() -> None:
    lines = log_of(5)
    seen = head_of(lines[3]).hash
    assert verified(lines, seen).seq == 5
    with pytest.raises(IntegrityError, match="it is another log"):
        verified(lines[:3], seen)
    assert verified(lines, GENESIS).seq == 5


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"[]\n", b'{"hash":1}\n', b"\xff\n", b"[" * 9000 + b"\n"])
def test_malformed_lines_are_rejected(line: bytes) -> None:
    for judge in (head_of, lambda text: check_line(LogHead(), text)):
        with pytest.raises(IntegrityError):
            judge(line)


def test_the_same_entry_in_another_encoding_is_rejected() -> None:
    line, _ = append(LogHead(), ENTRY)
    spaced = json.dumps(json.loads(line), sort_keys=True).encode() + b"\n"
    with pytest.raises(IntegrityError, match="damaged"):
        check_line(LogHead(), spaced)
