"""The hash chain: its head, and that every change to a log is detected."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.files.hash_chain import GENESIS, LogCheck, LogHead, check_line, head_of
from p2pmodel.errors import IntegrityError
from p2pmodel.store.state.log_chain import LogEntry, append

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
