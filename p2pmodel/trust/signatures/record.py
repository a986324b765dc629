"""Signed statements on disk: those that this node has verified, and those in the folder of the settings.

None of them is trusted: each is verified whenever it is used, by the keys that are allowed then.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.core.content.names import RepoId
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.core.plain_json import parse_json
from p2pmodel.os_errors import translated
from p2pmodel.trust.signatures.statement import MAX_FILE, MAX_STATEMENTS, SUFFIX, SignedStatement, read
from p2pmodel.trust.signatures.wire import Malformed

MAX_FILES = 1000
"""Files of the settings' folder that are read."""


@dataclass(frozen=True, slots=True)
class SignatureWarning:
    """A snapshot that was used although its signature did not count: why, and when (seconds since 1970)."""

    reason: str
    time: float


@dataclass(frozen=True, slots=True)
class SignatureRecords:
    """The records in `state` (None: none are kept), and the user's own `folder`. Blocks: call in a thread."""

    state: Path | None
    folder: Path | None = None

    def statements(self, repo: RepoId, commit: str) -> tuple[SignedStatement, ...]:
        """Statements over `repo` at `commit`, recorded ones first. What cannot be read is left out."""
        found = [*self._recorded(repo, commit), *self._in_folder(repo, commit)]
        return tuple(dict.fromkeys(found))

    def warning(self, repo: RepoId, commit: str) -> SignatureWarning | None:
        """The warning about a snapshot, if it was used with one."""
        with suppress(LookupError, TypeError, ValueError):
            plain = self._plain(repo, commit)["warned"]
            return SignatureWarning(str(plain["reason"]), float(plain["time"]))
        return None

    @translated()
    def record(self, repo: RepoId, commit: str, signed: SignedStatement) -> None:
        """Keep a verified statement, for times without a coordinator. A former warning is forgotten."""
        kept = self._recorded(repo, commit)
        if signed not in kept or self.warning(repo, commit) is not None:
            latest = list(dict.fromkeys([signed, *kept]))[:MAX_STATEMENTS]
            self._write(repo, commit, {"signatures": [each.plain for each in latest]})

    @translated()
    def warn(self, repo: RepoId, commit: str, warning: SignatureWarning) -> None:
        """Keep that the snapshot was used with a warning."""
        kept = [each.plain for each in self._recorded(repo, commit)]
        self._write(repo, commit, {"signatures": kept, "warned": {"reason": warning.reason, "time": warning.time}})

    def _recorded(self, repo: RepoId, commit: str) -> tuple[SignedStatement, ...]:
        with suppress(Malformed, ValueError):
            return read(json.dumps(self._plain(repo, commit)).encode())
        return ()

    def _plain(self, repo: RepoId, commit: str) -> dict[str, Any]:
        try:
            plain = parse_json(self._path(repo, commit).read_bytes()) if self.state else {}
        except (OSError, ValueError):
            return {}
        return plain if isinstance(plain, dict) else {}

    def _write(self, repo: RepoId, commit: str, plain: dict[str, Any]) -> None:
        if self.state is not None:
            make_folders(self.state)
            write_private(self._path(repo, commit), json.dumps(plain).encode())

    def _path(self, repo: RepoId, commit: str) -> Path:
        assert self.state is not None
        name = hashlib.sha256(f"{repo.folded}@{commit}".encode()).hexdigest()[:32]
        return self.state / f"{name}.json"

    def _in_folder(self, repo: RepoId, commit: str) -> list[SignedStatement]:
        found = []
        files = sorted(self.folder.glob(f"*{SUFFIX}"))[:MAX_FILES] if self.folder else []
        for signed in (each for file in files for each in read_beside(file)):
            with suppress(Malformed):
                statement = signed.parsed()
                if statement.repo.is_spelling_of(repo) and statement.commit == commit:
                    found.append(signed)
        return found


def read_beside(file: Path) -> tuple[SignedStatement, ...]:
    """The statements in `file`; none if there is no such file, or it cannot be read. Blocks."""
    with suppress(OSError, Malformed), file.open("rb") as opened:
        return read(opened.read(MAX_FILE))
    return ()
