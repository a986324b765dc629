"""Torrents with content that failed the hashes of the hub: they are not used again for a while."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from p2pmodel.core.content.names import Reference
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import read_json

KEPT = 24 * 3600.0
"""Seconds for which a torrent is refused."""
MAX_REFUSED = 256
"""Torrents that are remembered; the oldest are forgotten."""


class RefusedTorrents:
    """Info-hashes in the file `path`; without one, in memory. Blocks: call in a thread."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._own: list[tuple[str, str, float]] = []

    def of(self, ref: Reference) -> frozenset[str]:
        """The refused torrents of a commit."""
        return frozenset(info_hash for commit, info_hash, _ in self._load() if commit == str(ref))

    @translated()
    def add(self, ref: Reference, info_hash: str) -> None:
        """Refuse a torrent of the commit `ref` from now on."""
        others = [entry for entry in self._load() if entry[:2] != (str(ref), info_hash)]
        self._own = [*others, (str(ref), info_hash, self._clock())][-MAX_REFUSED:]
        if self._path is not None:
            make_folders(self._path.parent)
            write_private(self._path, json.dumps(self._own).encode())

    def _load(self) -> list[tuple[str, str, float]]:
        plain = read_json(self._path) if self._path is not None else None
        entries = plain if isinstance(plain, list) else self._own
        now, kept = self._clock(), []
        for entry in entries[-MAX_REFUSED:]:
            try:
                commit, info_hash, at = str(entry[0]), str(entry[1]), float(entry[2])
            except (TypeError, ValueError, IndexError, KeyError):
                continue
            # A time in the future is that of a clock that was set back since.
            if abs(now - at) < KEPT:
                kept.append((commit, info_hash, at))
        return kept
