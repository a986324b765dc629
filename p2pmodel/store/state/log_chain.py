"""The sync log of a mirror: one line a file, each line vouching for all before it. Pure.

A line is a JSON object, compact, keys sorted, and its `hash` is the sha256 of the same without `hash`. `previous` is
the hash of the line before (64 zeros for the first) and `seq` counts from 1. Who keeps the hash of one line can tell
later whether anything up to there was changed, left out or added.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from p2pmodel.errors import IntegrityError

GENESIS = "0" * 64
MAX_LINE = 64 << 10


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One file as it was synced at `time` (UTC, ISO 8601): its sha256, its etag on the hub, and the names of the
    mirrors whose bytes it is made of. None are named for bytes that an earlier, stopped run brought."""

    time: str
    repo: str
    commit: str
    path: str
    size: int
    etag: str
    sha256: str
    sources: Sequence[str]


@dataclass(frozen=True, slots=True)
class LogHead:
    """The end of a log: how many lines it has, and the hash of the last."""

    seq: int = 0
    hash: str = GENESIS


def append(head: LogHead, entry: LogEntry) -> tuple[bytes, LogHead]:
    """The line, with its newline, that `entry` is after `head`; and the new head."""
    body = {**asdict(entry), "sources": list(entry.sources), "seq": head.seq + 1, "previous": head.hash}
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    return _canonical({**body, "hash": digest}) + b"\n", LogHead(head.seq + 1, digest)


def check(head: LogHead, line: bytes) -> LogHead:
    """The head after `line`, which must be the one that follows `head`. Raises IntegrityError saying what is wrong."""
    where = f"line {head.seq + 1} of the sync log"
    body = _parsed(line)
    if body is None or not line.endswith(b"\n") or _canonical(body) != line[:-1]:
        raise IntegrityError(f"{where} is damaged")
    digest = body.pop("hash", None)
    if digest != hashlib.sha256(_canonical(body)).hexdigest():
        raise IntegrityError(f"{where} was changed: its hash does not fit")
    if body.get("seq") != head.seq + 1 or body.get("previous") != head.hash:
        raise IntegrityError(f"{where} does not follow the one before: lines were taken out, added or exchanged")
    return LogHead(head.seq + 1, digest)


class LogCheck:
    """A log, line by line. With `expect` one of its lines must have that hash: who saw the log end with it before
    learns that it still begins as it did then."""

    def __init__(self, expect: str | None = None) -> None:
        self.head = LogHead()
        self._expect = expect
        self._found = expect in (None, GENESIS)

    def feed(self, line: bytes) -> None:
        """The next line. Raises as `check`."""
        self.head = check(self.head, line)
        self._found = self._found or self.head.hash == self._expect

    def end(self) -> LogHead:
        """No more lines; where the log ends. Raises IntegrityError if what was expected is not in it."""
        if not self._found:
            raise IntegrityError(f"no line of the sync log has the hash {self._expect}: it is not the log it was")
        return self.head


def head_of(line: bytes) -> LogHead:
    """The head that `line`, the last of a log, claims. Raises IntegrityError."""
    body = _parsed(line)
    try:
        assert body is not None
        seq = int(body["seq"]) - 1
        return check(LogHead(seq, str(body["previous"])), line)
    except (AssertionError, KeyError, TypeError, ValueError):
        raise IntegrityError("the last line of the sync log is damaged") from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
