"""The lines of a mirror's sync log: one per file, chained by hashes (`core/files/hash_chain`). Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from p2pmodel.core.files.hash_chain import LogHead, append_line


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


def append(head: LogHead, entry: LogEntry) -> tuple[bytes, LogHead]:
    """The line for `entry` after `head`, with its newline; and the new head."""
    return append_line(head, {**asdict(entry), "sources": list(entry.sources)})
