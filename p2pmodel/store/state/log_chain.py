"""The hash chain of a mirror's sync log: one line per file, each line covers all before it. Pure.

A line is a compact JSON object with sorted keys; its `hash` is the sha256 of the same object without `hash`. `previous`
is the hash of the line before (64 zeros for the first), and `seq` counts from 1. With the hash of one line, any later
change, omission or insertion before it can be detected.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import IntegrityError

GENESIS = "0" * 64
MAX_LINE = 64 << 10


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One file as it was synced at `time` (UTC, ISO 8601), with its sha256 and its etag on the hub.

    `sources` are the names of the mirrors that sent its bytes, except bytes that an earlier, stopped run downloaded.
    `vouched_by`: what listed the file with this etag for the commit, as `mirror NAME`; `record`: a mirror did so in an
    earlier run.
    """

    time: str
    repo: str
    commit: str
    path: str
    size: int
    etag: str
    sha256: str
    sources: Sequence[str]
    vouched_by: str


@dataclass(frozen=True, slots=True)
class LogHead:
    """The end of a log: the number of lines, and the hash of the last."""

    seq: int = 0
    hash: str = GENESIS


def append(head: LogHead, entry: LogEntry) -> tuple[bytes, LogHead]:
    """The line for `entry` after `head`, with its newline; and the new head."""
    body = {**asdict(entry), "sources": list(entry.sources), "seq": head.seq + 1, "previous": head.hash}
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    return _canonical({**body, "hash": digest}) + b"\n", LogHead(head.seq + 1, digest)


def check(head: LogHead, line: bytes) -> LogHead:
    """The head after `line`, which must follow `head`. Raises IntegrityError with the reason."""
    where = f"line {head.seq + 1} of the sync log"
    body = _parsed(line)
    if body is None or not line.endswith(b"\n") or _canonical(body) != line[:-1]:
        raise IntegrityError(f"{where} is damaged")
    digest = body.pop("hash", None)
    if digest != hashlib.sha256(_canonical(body)).hexdigest():
        raise IntegrityError(f"{where} was changed: its hash does not match")
    if body.get("seq") != head.seq + 1 or body.get("previous") != head.hash:
        raise IntegrityError(f"{where} does not follow the line before: lines were removed, added or exchanged")
    return LogHead(head.seq + 1, digest)


class LogCheck:
    """Checks a log line by line. With `expect` one of its lines must have that hash: then the log still begins as it
    was when it ended with that line."""

    def __init__(self, expect: str | None = None) -> None:
        self.head = LogHead()
        self._expect = expect
        self._found = expect in (None, GENESIS)

    def feed(self, line: bytes) -> None:
        """Check the next line. Raises as `check`."""
        self.head = check(self.head, line)
        self._found = self._found or self.head.hash == self._expect

    def end(self) -> LogHead:
        """The end of the log. Raises IntegrityError if no line has the expected hash."""
        if not self._found:
            raise IntegrityError(f"no line of the sync log has the hash {self._expect}: it is another log")
        return self.head


def head_of(line: bytes) -> LogHead:
    """The head according to `line`, the last of a log. Raises IntegrityError."""
    body = _parsed(line)
    try:
        assert body is not None
        seq = int(body["seq"]) - 1
        return check(LogHead(seq, str(body["previous"])), line)
    except (AssertionError, KeyError, TypeError, ValueError):
        raise IntegrityError("the last line of the sync log is damaged") from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        body = parse_json(line)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
