"""Logs in which each line covers all lines before it. Pure.

A line is a compact JSON object with sorted keys; its `hash` is the sha256 of the same object without `hash`. `previous`
is the hash of the line before (64 zeros for the first), and `seq` counts from 1. With the hash of one line, any later
change, omission or insertion before it can be detected.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import IntegrityError

GENESIS = "0" * 64
MAX_LINE = 64 << 10
SYNC_LOG = "sync log"


@dataclass(frozen=True, slots=True)
class LogHead:
    """The end of a log: the number of lines, and the hash of the last."""

    seq: int = 0
    hash: str = GENESIS


def append_line(head: LogHead, content: Mapping[str, Any]) -> tuple[bytes, LogHead]:
    """The line with `content` after `head`, with its newline; and the new head."""
    body = {**content, "seq": head.seq + 1, "previous": head.hash}
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    return _canonical({**body, "hash": digest}) + b"\n", LogHead(head.seq + 1, digest)


def check_line(head: LogHead, line: bytes, log: str = SYNC_LOG) -> LogHead:
    """The head after `line`, which must follow `head`. Raises IntegrityError with the reason; `log` names the log."""
    where = f"line {head.seq + 1} of the {log}"
    body = parsed_line(line)
    if body is None or not line.endswith(b"\n") or _canonical(body) != line[:-1]:
        raise IntegrityError(f"{where} is damaged")
    digest = body.pop("hash", None)
    if digest != hashlib.sha256(_canonical(body)).hexdigest():
        raise IntegrityError(f"{where} was changed: its hash does not match")
    if body.get("seq") != head.seq + 1 or body.get("previous") != head.hash:
        raise IntegrityError(f"{where} does not follow the line before: lines were removed, added or exchanged")
    return LogHead(head.seq + 1, digest)


class LogCheck:
    """Checks a log line by line, from `begin`. With `expect` one of its lines must have that hash: then the log still
    begins as it was when it ended with that line."""

    def __init__(self, expect: str | None = None, *, log: str = SYNC_LOG, begin: LogHead | None = None) -> None:
        self.head = begin or LogHead()
        self._log = log
        self._expect = expect
        self._found = expect in (None, GENESIS, self.head.hash)

    def feed(self, line: bytes) -> None:
        """Check the next line. Raises as `check_line`."""
        self.head = check_line(self.head, line, self._log)
        self._found = self._found or self.head.hash == self._expect

    def end(self) -> LogHead:
        """The end of the log. Raises IntegrityError if no line has the expected hash."""
        if not self._found:
            raise IntegrityError(f"no line of the {self._log} has the hash {self._expect}: it is another log")
        return self.head


def head_before(line: bytes, log: str = SYNC_LOG) -> LogHead:
    """The head that `line` says it follows. Raises IntegrityError."""
    body = parsed_line(line)
    try:
        assert body is not None
        return LogHead(int(body["seq"]) - 1, str(body["previous"]))
    except (AssertionError, KeyError, TypeError, ValueError):
        raise IntegrityError(f"a line of the {log} is damaged") from None


def head_of(line: bytes, log: str = SYNC_LOG) -> LogHead:
    """The head according to `line`, the last of a log. Raises IntegrityError."""
    try:
        return check_line(head_before(line, log), line, log)
    except IntegrityError:
        raise IntegrityError(f"the last line of the {log} is damaged") from None


def parsed_line(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None if it has none."""
    try:
        body = parse_json(line)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
