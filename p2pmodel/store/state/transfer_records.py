"""Records of a node's transfers, which survive its end: `<id>.json`, and `<id>.torrent` once there is one.

Each is replaced in one step, so a run after kill -9 finds the last request. The progress is recorded elsewhere: in the
staging record and the journal of verified blobs.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import COMMIT, RepoId, check_revision, transfer_id
from p2pmodel.core.files.private_files import make_folders, remove_leftovers, write_private
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import read_json

_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """The request: a snapshot, the refs to point at it, the files, and whether it may run.

    `selections` are of clients; `prefetch` those that only follow lists ask for, which come in their windows alone.
    `added` in seconds since 1970; `peers` are used in addition to those of the trackers, `trackers` in
    addition to those of the coordinators.
    """

    repo: RepoId
    commit: str
    revisions: tuple[str, ...] = ()
    selections: tuple[Selection, ...] = (Selection(),)
    peers: tuple[tuple[str, int], ...] = ()
    trackers: tuple[str, ...] = ()
    priority: int = 0
    paused: bool = False
    complete: bool = False
    added: float = 0.0
    prefetch: tuple[Selection, ...] = ()

    @property
    def id(self) -> str:
        """Depends on the snapshot alone: a snapshot has one transfer."""
        return transfer_id(self.repo, self.commit)


class TransferRecords:
    """The records in `folder`, which is made when the first is saved. Blocks: call in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @translated()
    def load(self) -> tuple[list[TransferRecord], list[str]]:
        """The records, oldest first, and a line for each damaged one, which is skipped."""
        remove_leftovers(self._folder)
        found, notes = [], []
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            try:
                record = _from_plain(read_json(path))
            except (InvalidInput, KeyError, TypeError, ValueError, AttributeError):
                notes.append(f"{path} is damaged and skipped: fetch that model again")
                continue
            found.append(record)
        return sorted(found, key=lambda record: (record.added, record.id)), notes

    @translated()
    def save(self, record: TransferRecord) -> None:
        """Replace the record of this transfer. Durable on return."""
        self._write(f"{record.id}.json", json.dumps(_plain(record)).encode())

    @translated()
    def save_torrent(self, ident: str, raw: bytes) -> None:
        """Save the .torrent of a transfer."""
        self._write(f"{_checked(ident)}.torrent", raw)

    def torrent(self, ident: str) -> bytes | None:
        """The .torrent last saved for a transfer."""
        try:
            return (self._folder / f"{_checked(ident)}.torrent").read_bytes()
        except OSError:
            return None

    @translated()
    def forget(self, ident: str) -> None:
        """Remove all records of a transfer."""
        for kind in ("json", "torrent"):
            (self._folder / f"{_checked(ident)}.{kind}").unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        make_folders(self._folder)
        write_private(self._folder / name, data)


def _checked(ident: str) -> str:
    if not _ID.fullmatch(ident):
        raise InvalidInput("a transfer's id is 12 hex digits")
    return ident


def _plain(record: TransferRecord) -> dict[str, Any]:
    return {
        "repo": str(record.repo),
        "commit": record.commit,
        "revisions": record.revisions,
        "selections": [[s.include, s.exclude] for s in record.selections],
        "prefetch": [[s.include, s.exclude] for s in record.prefetch],
        "peers": record.peers,
        "trackers": record.trackers,
        "priority": record.priority,
        "paused": record.paused,
        "complete": record.complete,
        "added": record.added,
    }


def _from_plain(plain: Any) -> TransferRecord:
    commit = plain["commit"]
    if not COMMIT.fullmatch(commit):
        raise ValueError(commit)
    return TransferRecord(
        repo=RepoId(plain["repo"]),
        commit=commit,
        revisions=tuple(check_revision(name) for name in plain["revisions"]),
        selections=_selections(plain["selections"]),
        peers=tuple((str(host), int(port)) for host, port in plain["peers"]),
        trackers=tuple(map(str, plain["trackers"])),
        priority=int(plain["priority"]),
        paused=bool(plain["paused"]),
        complete=bool(plain["complete"]),
        added=float(plain["added"]),
        prefetch=_selections(plain.get("prefetch", ())),
    )


def _selections(plain: Any) -> tuple[Selection, ...]:
    return tuple(Selection(tuple(map(str, include)), tuple(map(str, exclude))) for include, exclude in plain)
